"""Tests over paired cases: Wilcoxon, Holm."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from nnunetv2_hlfd.report.bootstrap import Array

LEAST_GAP = 0.02


def wilcoxon_p(differences: Array) -> float:
    """Two-sided p of the paired Wilcoxon signed-rank test; 1 where no case differs.

    SciPy's defaults: cases without a difference are left out (Wilcoxon's own way), and the distribution is exact up to
    50 cases without ties; else it is the normal approximation, or a permutation of up to 13 cases.

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
