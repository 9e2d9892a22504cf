"""The named loss terms of a distillation, raw and weighted, as distillation_log.csv and a plot."""

import csv
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import matplotlib
import numpy as np

matplotlib.use("agg")  # as nnU-Net's logger does
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from nnunetv2_hlfd.utilities.atomic import atomic_path

CSV_FILE, PLOT_FILE, BALANCE_FILE = "distillation_log.csv", "distillation_progress.png", "distillation_balance.csv"


class Balance(Protocol):
    """What balancing the gradients did in one step; tensors (parts, terms), NaN where a term does not reach a part."""

    parts: Sequence[str]
    terms: Sequence[str]
    share: Tensor
    ratio: Tensor
    cosine: Tensor


class DistillationLog:
    """One row an epoch: the segmentation loss, and each term raw and times its weight.

    The rows travel in the checkpoint and the files are rewritten whole, so a resumed run continues them.

    Args:
        term_names: in order.
        ratio_terms: those whose weight is multiplied by a ratio in every step.
    """

    def __init__(self, term_names: Iterable[str], ratio_terms: Iterable[str] = ()) -> None:
        self.term_names, self.ratio_terms = list(term_names), list(ratio_terms)
        self.rows: list[dict[str, Any]] = []
        self.balance_rows: list[dict[str, Any]] = []

    def add(self, epoch: int, means: Iterable[float], factors: Mapping[str, float]) -> dict[str, float]:
        """Add an epoch's row and return its values.

        Args:
            epoch: from 0.
            means: the segmentation loss, then the terms in order.
            factors: weight of each term in this epoch.
        """
        segmentation, *terms = (float(mean) for mean in means)
        values = {"segmentation": segmentation}
        for name, value in zip(self.term_names, terms, strict=True):
            values[name], values[f"{name}_weighted"] = value, value * factors[name]
        self.rows = [row for row in self.rows if row["epoch"] < epoch] + [{"epoch": epoch, **values}]
        return values

    def add_ratios(
        self, ratios: Iterable[float], scaled: Iterable[float], factors: Mapping[str, float]
    ) -> dict[str, float]:
        """Add to the last row the ratios that multiply weights, and correct what is weighted by them.

        Args:
            ratios: means over the epoch, in the order of `ratio_terms`.
            scaled: means of the terms times their ratio.
            factors: as for `add`.
        """
        values = {}
        for name, ratio, term in zip(self.ratio_terms, ratios, scaled, strict=True):
            values[f"{name}_weighted"], values[f"{name}_ratio"] = float(term) * factors[name], float(ratio)
        self.rows[-1] |= values
        return values

    def add_balance(self, epoch: int, steps: Sequence[Balance]) -> dict[str, float]:
        """Add an epoch's rows to the table of balanced gradients, and the mean share of each term to the epoch's row.

        Steps in which a gradient was not finite (GradScaler has skipped them) are left out.

        Args:
            epoch: of the row that `add` has added.
            steps: one record for each step that was balanced.
        """
        shares = {f"{name}_share": math.nan for name in self.term_names}
        self.balance_rows = [row for row in self.balance_rows if row["epoch"] < epoch]
        if steps:
            means = mean_of_known([_finite(step) for step in steps])
            first = steps[0]
            shares |= {
                f"{term}_share": float(mean_of_known(means[0][:, column])) for column, term in enumerate(first.terms)
            }
            self.balance_rows += [
                {"epoch": epoch, "part": part, "term": term, "share": share, "ratio": ratio, "cosine": cosine}
                for row, part in enumerate(first.parts)
                for column, term in enumerate(first.terms)
                for share, ratio, cosine in [means[:, row, column].tolist()]
            ]
        self.rows[-1] |= shares
        return shares

    def write(self, folder: Path) -> None:
        """Write the tables and the plot into a fold's folder."""
        _write_table(self.rows, folder / CSV_FILE)
        if self.balance_rows:
            _write_table(self.balance_rows, folder / BALANCE_FILE)
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


def mean_of_known(values: Sequence[Any]) -> Any:
    """Mean over the first axis of what is not NaN; NaN where nothing else is there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of an empty mean
        return np.nanmean(values, axis=0)


def _finite(step: Balance) -> Any:
    """Share, ratio and cosine (3, parts, terms) of a step, NaN where one of them is not finite."""
    values = torch.stack([step.share, step.ratio, step.cosine]).float().cpu().numpy()
    return np.where(np.isfinite(values).all(axis=0), values, np.nan)


def _write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
