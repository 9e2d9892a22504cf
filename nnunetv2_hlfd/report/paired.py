"""A measure of one label in every arm, case by case and run by run, so that arms are compared over the same cases."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from nnunetv2_hlfd.report.arms import Arm
from nnunetv2_hlfd.report.bootstrap import Array, Bootstrap, Interval


class PairedValues:
    """A table (cases, runs) for each arm.

    Args:
        values: a row for each run, case and label, with the measure in a column.
        label: whose rows are taken.
        measure: the column.
        arms: whose runs these are.
        bootstrap: over the cases of `values`.
        limit: the largest difference that there can be; few runs that differ much have intervals beyond it.
    """

    def __init__(
        self,
        values: pd.DataFrame,
        label: str,
        measure: str,
        arms: Sequence[Arm],
        bootstrap: Bootstrap,
        limit: float = math.inf,
    ) -> None:
        self.label = label
        self._limit = limit
        self.bootstrap = bootstrap
        rows = values[values["label"] == label]
        table = rows.pivot_table(index="case", columns="run", values=measure, dropna=False)
        self._tables = {arm.name: table[[model.run for model in arm.models]].to_numpy(dtype=float) for arm in arms}

    def mean(self, arm: Arm) -> Array:
        """Of each case over the runs."""
        mean: Array = self._tables[arm.name].mean(axis=1)
        return mean

    def spread(self, arm: Arm) -> tuple[float, float]:
        """Mean and standard deviation (n - 1) over the runs of their means over the cases; NaN for a single run."""
        runs = self._tables[arm.name].mean(axis=0)
        return float(runs.mean()), float(runs.std(ddof=1)) if len(runs) > 1 else float("nan")

    def difference(self, first: Arm, second: Arm) -> Interval:
        """First minus second, within a seed where both arms have the same seeds."""
        tables = self._tables[first.name], self._tables[second.name]
        seeds = first.seeds, second.seeds
        if seeds[0] and seeds[1] and sorted(seeds[0]) == sorted(seeds[1]):
            paired = tables[0][:, np.argsort(seeds[0])] - tables[1][:, np.argsort(seeds[1])]
            return self.bootstrap.mean(paired).cut(self._limit)
        return self.bootstrap.difference(*tables).cut(self._limit)
