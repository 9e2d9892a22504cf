"""Figures of a report stay legible with many arms."""

import pandas as pd
import pytest

from nnunetv2_hlfd.networks.size import Size
from nnunetv2_hlfd.report.costs import Cost, Curve
from nnunetv2_hlfd.report.plots import draw_curves, draw_size
from nnunetv2_hlfd.report.summary import Summary

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


def test_arms_of_one_size_stay_near_it_in_the_plot_of_sizes():
    names = [f"arm {index}" for index in range(24)]
    arms = pd.DataFrame({"arm": names, "label": "tumor", "dice_mean": 0.5, "dice_std": float("nan")})
    summary = Summary(cases=pd.DataFrame(), runs=pd.DataFrame(), arms=arms, comparisons=[], to_teacher=[], gaps=[])
    cost = Cost(size=Size(parameters=1000, macs=1), checkpoint_bytes=1, latency=1.0)
    figure = draw_size(summary, "tumor", dict.fromkeys(names, cost))
    parameters = [container.lines[0].get_xdata()[0] for container in figure.axes[0].containers]
    assert len(set(parameters)) == len(names)
    assert min(parameters) > 850
    assert max(parameters) < 1150
