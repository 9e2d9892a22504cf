"""The named loss terms of a distillation, raw and weighted, as distillation_log.csv and a plot."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")  # as nnU-Net's logger does
from matplotlib import pyplot as plt

from nnunetv2_hlfd.utilities.atomic import atomic_path

CSV_FILE, PLOT_FILE = "distillation_log.csv", "distillation_progress.png"


class DistillationLog:
    """One row an epoch: the segmentation loss, and each term raw and times its weight.

    The rows travel in the checkpoint and the files are rewritten whole, so a resumed run continues them.
    """

    def __init__(self, term_names: Iterable[str]) -> None:
        self.term_names = list(term_names)
        self.rows: list[dict[str, Any]] = []

    def add(self, epoch: int, means: Iterable[float], factors: Mapping[str, float]) -> dict[str, float]:
        """Add an epoch's row and return its values.

        Args:
            epoch: from 0.
            means: the segmentation loss, then the terms in order.
            factors: weight of each term in this epoch.
        """
        segmentation, *terms = (float(each) for each in means)
        values = {"segmentation": segmentation}
        for name, value in zip(self.term_names, terms, strict=True):
            values[name], values[f"{name}_weighted"] = value, value * factors[name]
        self.rows = [row for row in self.rows if row["epoch"] < epoch] + [{"epoch": epoch, **values}]
        return values

    def write(self, folder: Path) -> None:
        """Write the table and the plot into a fold's folder."""
        with atomic_path(folder / CSV_FILE) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        with plt.style.context("default"), atomic_path(folder / PLOT_FILE) as temporary:
            self._plot(temporary)  # in the default style: nnU-Net's own plot leaves its large fonts behind

    def _plot(self, path: Path) -> None:
        epochs = [row["epoch"] for row in self.rows]
        figure, (raw, weighted) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
        for name in ("segmentation", *self.term_names):
            style: dict[str, Any] = {"color": "black", "linewidth": 2} if name == "segmentation" else {}
            suffix = "" if name == "segmentation" else "_weighted"
            style["marker"] = "." if len(epochs) == 1 else ""  # a single point is no line
            raw.plot(epochs, [row[name] for row in self.rows], label=name, **style)
            weighted.plot(epochs, [row[name + suffix] for row in self.rows], label=name, **style)
        raw.set(title="loss terms, raw", xlabel="epoch", ylabel="mean over the epoch", yscale="log")
        weighted.set(title="times their weights (what is optimized)", xlabel="epoch")
        raw.legend()
        for axes in (raw, weighted):
            axes.grid(alpha=0.3)
        figure.savefig(path, dpi=100)
        plt.close(figure)
