"""Wilcoxon, Holm and bootstrap intervals against hand computations, SciPy's own and known distributions."""

import itertools

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import norm

from nnunetv2_hlfd.report.statistics import Bootstrap, Interval, holm, wilcoxon_p

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


# Bootstrap


def test_the_interval_of_a_mean_is_scipys_percentile_interval():
    values = np.random.default_rng(5).normal(0.1, 0.2, 40)
    ours = Bootstrap(40).mean(values)
    theirs = scipy_bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1))
    assert ours.value == pytest.approx(values.mean())
    assert [ours.low, ours.high] == pytest.approx(list(theirs.confidence_interval), abs=0.004)


def test_the_interval_covers_the_truth_in_about_95_of_100_samples():
    random = np.random.default_rng(2)
    bootstrap = Bootstrap(60)
    intervals = [bootstrap.mean(random.normal(0.3, 1, 60)) for _ in range(300)]
    covered = np.mean([each.low <= 0.3 <= each.high for each in intervals])
    assert covered == pytest.approx(0.95, abs=0.04)
    width = np.mean([each.high - each.low for each in intervals])
    assert width == pytest.approx(2 * norm.ppf(0.975) / np.sqrt(60), rel=0.05)


def test_cases_without_a_value_change_nothing():
    values = np.random.default_rng(5).normal(0.1, 0.2, 40)
    gaps = np.where(np.arange(40) < 30, values, np.nan)
    ours = Bootstrap(40).mean(gaps)
    assert ours.value == pytest.approx(values[:30].mean())
    theirs = scipy_bootstrap((values[:30],), np.mean, method="percentile", rng=np.random.default_rng(1))
    assert [ours.low, ours.high] == pytest.approx(list(theirs.confidence_interval), abs=0.006)


def test_a_constant_has_an_interval_without_width():
    constant = Bootstrap(9).mean(np.full(9, 0.25))
    assert [constant.value, constant.low, constant.high] == pytest.approx([0.25] * 3)


def test_the_share_of_a_proportional_part_is_exact():
    """Resampled numerator and denominator come from the same patients."""
    whole = np.random.default_rng(4).normal(0.2, 0.1, 25)
    share = Bootstrap(25).share(0.4 * whole, whole)
    assert [share.value, share.low, share.high] == pytest.approx([0.4] * 3)


def test_the_share_counts_cases_that_have_both_values():
    part, whole = np.array([0.1, np.nan, 0.3]), np.array([0.2, 0.4, np.nan])
    assert Bootstrap(3).share(part, whole).value == pytest.approx(0.5)


@pytest.mark.parametrize(("low", "high", "excludes"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False)])
def test_an_interval_tells_whether_it_excludes_0(low, high, excludes):
    assert Interval(value=0, low=low, high=high).excludes_zero is excludes
