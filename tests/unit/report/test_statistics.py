"""Wilcoxon and Holm against hand computations and statsmodels."""

import itertools

import numpy as np
import pytest
from scipy.stats import wilcoxon
from statsmodels.stats.multitest import multipletests

from nnunetv2_hlfd.report.statistics import holm, wilcoxon_p

# Wilcoxon


def exact_wilcoxon(differences):
    """Two-sided p by listing all signs of the ranks (no ties, no zeros)."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    observed = abs(np.sum(np.sign(differences) * ranks))
    signs = np.array(list(itertools.product((-1, 1), repeat=len(differences))))
    return float(np.mean(np.abs(signs @ ranks) >= observed))


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.3])
def test_wilcoxon_is_the_exact_test_for_few_cases(shift):
    differences = np.random.default_rng(3).normal(shift, 0.1, 10)
    assert wilcoxon_p(differences) == pytest.approx(exact_wilcoxon(differences))


def test_wilcoxon_leaves_out_cases_without_a_value():
    differences = np.random.default_rng(1).normal(0.1, 0.1, 12)
    assert wilcoxon_p(np.append(differences, [np.nan, np.nan])) == wilcoxon_p(differences)


@pytest.mark.parametrize("differences", [[], [0.0, 0.0], [np.nan]])
def test_without_any_difference_p_is_1(differences):
    assert wilcoxon_p(np.array(differences, dtype=float)) == 1


def test_cases_without_a_difference_are_left_out_not_ranked():
    """Pratt's way, which ranks them, gives another p."""
    differences = np.array([0.01, 0.02, -0.03, 0.04, 0.05, 0.06, 0.07, 0.08])
    with_zeros = np.concatenate([differences, np.zeros(3)])
    expected = wilcoxon(differences, method="approx").pvalue
    assert wilcoxon(with_zeros, zero_method="pratt", method="approx").pvalue != pytest.approx(expected)
    assert wilcoxon(with_zeros, method="approx").pvalue == pytest.approx(expected)
    assert wilcoxon_p(with_zeros) == wilcoxon(with_zeros).pvalue != wilcoxon(with_zeros, zero_method="pratt").pvalue


# Holm


def test_holm_by_hand():
    """0.01 * 4, 0.02 * 3 = 0.06 -> 0.06, 0.03 * 2 = 0.06, 0.04 * 1 < 0.06 -> 0.06."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_holm_never_exceeds_1_and_keeps_the_order():
    p = np.random.default_rng(0).random(50)
    adjusted = np.array(holm(p.tolist()))
    assert adjusted.max() <= 1
    assert (adjusted >= p).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def test_holm_of_one_is_itself_and_of_none_is_none():
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_is_that_of_statsmodels():
    p = np.random.default_rng(1).random(9) ** 3
    assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1])
