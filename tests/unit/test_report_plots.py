"""Figures of a report stay legible with many arms."""

import pytest

from nnunetv2_hlfd.report.costs import Curve
from nnunetv2_hlfd.report.plots import draw_curves

VALUES = {"mean_fg_dice": [0.1, 0.5], "val_losses": [0.9, 0.4]}


@pytest.mark.parametrize("arms", [2, 26])
def test_every_arm_of_the_curves_is_named_inside_the_figure_in_a_style_of_its_own(arms):
    figure = draw_curves({f"arm {index}": [Curve(fold=0, values=VALUES)] for index in range(arms)})
    figure.draw_without_rendering()
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"arm {index}" for index in range(arms)]
    box = legend.get_window_extent()
    assert box.y0 >= 0
    assert box.y1 <= figure.bbox.height
    lines = figure.axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == arms
