"""Training curves."""

from nnunetv2_hlfd.report.findings import Findings
from nnunetv2_hlfd.report.page import Picture, Section
from nnunetv2_hlfd.report.plots import draw_curves


def curves(found: Findings) -> list[Section]:
    """Pseudo Dice and loss of every epoch, where checkpoints are there."""
    if not found.curves:
        return []
    figure = draw_curves(found.curves)
    picture = Picture(figure=figure, name="curves.png", text="Pseudo Dice and validation loss of every epoch")
    note = "Mean over runs and folds. A student alone that still rises at the end was not trained long enough."
    return [Section(title="Training curves", content=[picture], note=note)]
