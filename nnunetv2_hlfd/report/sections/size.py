"""Dice over size."""

from nnunetv2_hlfd.report.findings import Findings
from nnunetv2_hlfd.report.page import Picture, Section
from nnunetv2_hlfd.report.plots import draw_size


def size(found: Findings) -> list[Section]:
    """Dice of every arm over its number of parameters."""
    if not any(cost.size for cost in found.costs.values()):
        return []
    label = found.main_label
    picture = Picture(
        figure=draw_size(found.summary, label, found.costs),
        name="dice_size.png",
        text=f"Dice ({label}) of every arm over its number of parameters",
    )
    return [Section(title="Dice and size", content=[picture])]
