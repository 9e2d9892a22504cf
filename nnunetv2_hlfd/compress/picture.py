"""The picture of the report: where student and teacher agree."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_MOST_NAMES = 10


def draw_agreement(scores: pd.DataFrame) -> Figure:
    """Dice on each image, the worst first, and that of each label over its size by the teacher.

    Args:
        scores: A row for each image and label, with the columns case, label, dice and reference_voxels.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    images, sizes = figure.subplots(1, 2, sharey=True)
    order = scores.groupby("case")["dice"].mean().sort_values()
    images.plot(np.arange(len(order)), order.to_numpy(), "o", color="black", markersize=4, label="mean of labels")
    images.set(xlabel="held-out image, the worst first", ylabel="Dice of student and teacher", ylim=(-0.03, 1.03))
    few = len(order) <= _MOST_NAMES
    images.set_xticks(np.arange(len(order)) if few else [], order.index if few else [], rotation=30, ha="right")
    colors = colormaps["tab10" if scores["label"].nunique() <= _MOST_NAMES else "tab20"]
    for index, (label, rows) in enumerate(scores.groupby("label", sort=False)):
        color = colors(index % colors.N)
        positions = [order.index.get_loc(case) for case in rows["case"]]
        images.plot(positions, rows["dice"], ".", color=color, alpha=0.7)
        sizes.plot(rows["reference_voxels"], rows["dice"], "o", color=color, alpha=0.7, markersize=4, label=label)
    sizes.set(xlabel="voxels of the label, by the teacher", xscale="log")
    if (scores["reference_voxels"] == 0).any():  # labels that the student alone finds, or neither
        sizes.set_xscale("symlog", linthresh=1)
    for axis in (images, sizes):
        axis.grid(alpha=0.3)
    if scores["label"].nunique() <= _MOST_NAMES:
        sizes.legend(fontsize=8)
    images.legend(fontsize=8)
    return figure
