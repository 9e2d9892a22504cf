"""Statistics over paired cases: Wilcoxon, Holm, bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import wilcoxon

Array = npt.NDArray[np.float64]

RESAMPLES = 10_000
SEED = 0
LEAST_GAP = 0.02
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


class Bootstrap:
    """Percentile intervals over patients; all of them from the same resamples, so that they can be compared.

    Args:
        num_cases: number of patients.
    """

    def __init__(self, num_cases: int) -> None:
        draws = np.random.default_rng(SEED).multinomial(num_cases, np.full(num_cases, 1 / num_cases), size=RESAMPLES)
        self._weights = draws.astype(np.float64)

    def mean(self, values: Array) -> Interval:
        """The mean over the cases that have a value (not NaN)."""
        return _interval(float(np.nanmean(values)), self._means(values))

    def share(self, part: Array, whole: Array) -> Interval:
        """The ratio of two means over the cases that have both values."""
        both = np.isfinite(part) & np.isfinite(whole)
        part, whole = np.where(both, part, np.nan), np.where(both, whole, np.nan)
        return _interval(float(np.nanmean(part) / np.nanmean(whole)), self._means(part) / self._means(whole))

    def _means(self, values: Array) -> Array:
        present = np.isfinite(values)
        with np.errstate(invalid="ignore"):  # a resample without a case that has a value
            means: Array = (self._weights @ np.where(present, values, 0)) / (self._weights @ present)
        return means


def _interval(value: float, resampled: Array) -> Interval:
    low, high = np.nanpercentile(resampled, _INTERVAL)
    return Interval(value=value, low=float(low), high=float(high))


def wilcoxon_p(differences: Array) -> float:
    """Two-sided p of the paired Wilcoxon signed-rank test; 1 where no case differs.

    Args:
        differences: of the paired values; NaN where a case lacks one.
    """
    differences = differences[np.isfinite(differences)]
    if not np.any(differences):
        return 1.0
    result: Any = wilcoxon(differences)
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): p_(i) -> max over j <= i of min(1, (m - j + 1) p_(j))."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.minimum(1, np.maximum.accumulate(factors * np.asarray(p_values)[order]))
    result = np.empty(len(p_values))
    result[order] = adjusted
    return result.tolist()
