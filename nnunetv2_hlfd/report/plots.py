"""Figures of a report."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nnunetv2_hlfd.report.costs import Cost, Curve
from nnunetv2_hlfd.report.summary import LOSS, Summary

_MARKERS = "osD^vP*X"
_LINES = ("-", "--", ":", "-.")
_COLORS = 20
_COLUMNS = 4
_LEGEND_ROW = 0.19  # inches
_WIDEST = 1.3  # parameters, over all arms of one size


def draw_size(summary: Summary, label: str, costs: Mapping[str, Cost]) -> Figure:
    """Dice over parameters; bars are the standard deviation over runs. Arms of the same size stand side by side."""
    figure, axis = _figure(8, 4.5)
    table = summary.arms[summary.arms["label"] == label].set_index("arm")
    sizes = {arm: cost.size.parameters for arm, cost in costs.items() if cost.size}
    for index, (arm, parameters) in enumerate(sizes.items()):
        same = [other for other, size in sizes.items() if size == parameters]
        shift = min(1.04, _WIDEST ** (1 / len(same))) ** (same.index(arm) - (len(same) - 1) / 2)
        spread = table.loc[arm, "dice_std"]
        axis.errorbar(
            parameters * shift,
            table.loc[arm, "dice_mean"],
            yerr=None if math.isnan(spread) else spread,
            label=arm,
            color=_color(index),
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=8,
            capsize=3,
            linestyle="none",
        )
    axis.set(xscale="log", xlabel="parameters", ylabel=f"Dice, {label}")
    _finish(figure, axis)
    return figure


def draw_curves(curves: Mapping[str, Sequence[Curve]]) -> Figure:
    """Pseudo Dice and validation loss of every epoch: mean over the runs and folds of an arm."""
    figure, dice, loss = _two_axes(12, 4.5)
    for index, (arm, runs) in enumerate(curves.items()):
        for axis, name in ((dice, "mean_fg_dice"), (loss, "val_losses")):
            lengths = [len(curve.values[name]) for curve in runs]
            mean = np.mean([curve.values[name][: min(lengths)] for curve in runs], axis=0)
            axis.plot(mean, color=_color(index), label=arm, linewidth=1.5, linestyle=_line(index))
    dice.set(title="pseudo Dice on validation patches", xlabel="epoch", ylim=(0, 1))
    loss.set(title="validation loss (each arm's own segmentation loss)", xlabel="epoch")
    loss.grid(alpha=0.3)
    _finish(figure, dice)
    return figure


def draw_cases(summary: Summary, label: str, alone: str, arms: Sequence[str]) -> Figure:
    """Each case's Dice of an arm over that of the student alone; the worst losers are named."""
    table = summary.cases[summary.cases["label"] == label]
    dice = table.pivot_table(index="case", columns="arm", values="dice", aggfunc="mean")
    rows = math.ceil(len(arms) / _COLUMNS)
    figure = Figure(figsize=(3.1 * min(len(arms), _COLUMNS), 3.3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, min(len(arms), _COLUMNS), squeeze=False, sharex=True, sharey=True).ravel()
    for axis, arm in zip(grid, arms, strict=False):
        axis.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
        axis.scatter(dice[alone], dice[arm], s=14, alpha=0.7, color=_color(0))
        worst = (dice[arm] - dice[alone]).dropna().nsmallest(3)
        for case, difference in worst.items():
            if difference < -LOSS:
                axis.annotate(str(case), (dice.loc[case, alone], dice.loc[case, arm]), fontsize=6, color="firebrick")
        axis.set_title(arm, fontsize=9, wrap=True)
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axis.grid(alpha=0.3)
    for axis in grid[len(arms) :]:
        axis.remove()
    figure.supxlabel(f"Dice of {alone}, {label}", fontsize=9)
    figure.supylabel("Dice of the arm", fontsize=9)
    return figure


def draw_reliability(curves: Mapping[str, Mapping[str, npt.NDArray[np.float64]]]) -> Figure:
    """How often voxels truly have the label over their probability, for each arm; a panel for each label.

    Args:
        curves: label -> arm -> (2, points).
    """
    rows, columns = math.ceil(len(curves) / _COLUMNS), min(len(curves), _COLUMNS)
    figure = Figure(figsize=(3.1 * columns + 2.5, 3.3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axis, (label, arms) in zip(grid, curves.items(), strict=False):
        axis.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
        for index, (arm, (probability, frequency)) in enumerate(arms.items()):
            axis.plot(
                probability, frequency, color=_color(index), label=arm, linestyle=_line(index), marker=".", linewidth=1
            )
        axis.set_title(label, fontsize=9, wrap=True)
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axis.grid(alpha=0.3)
    for axis in grid[len(curves) :]:
        axis.remove()
    figure.supxlabel("probability of the label", fontsize=9)
    figure.supylabel("how often it is there", fontsize=9)
    _finish(figure, grid[0])
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _two_axes(width: float, height: float) -> tuple[Figure, Axes, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    return figure, left, right


def _color(index: int) -> tuple[float, ...]:
    color: tuple[float, ...] = colormaps["tab20"](index % _COLORS)
    return color


def _line(index: int) -> str:
    """Another style each time that the colors start again."""
    return _LINES[index // _COLORS % len(_LINES)]


def _finish(figure: Figure, axis: Axes) -> None:
    axis.grid(alpha=0.3)
    handles, labels = axis.get_legend_handles_labels()
    figure.set_figheight(max(figure.get_figheight(), _LEGEND_ROW * (len(labels) + 1)))
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
