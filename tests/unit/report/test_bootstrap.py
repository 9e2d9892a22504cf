"""Bootstrap intervals against SciPy's own, closed forms, and their coverage in simulated studies."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import norm

from nnunetv2_hlfd.report import bootstrap as module
from nnunetv2_hlfd.report.bootstrap import Bootstrap, Interval


def skewed(random, cases, runs=1, between_runs=0.0):
    """Differences with mean 0 in which a few patients lose much, and runs that are better or worse as a whole."""
    patients = 0.1 * (1 - random.exponential(1, (cases, 1)))
    return patients + random.normal(0, 0.05, (cases, runs)) + random.normal(0, between_runs, (1, runs))


def coverage(cases, runs, between_runs, studies, interval_of=None):
    random, bootstrap = np.random.default_rng(5), Bootstrap(cases)
    intervals = [(interval_of or bootstrap.mean)(skewed(random, cases, runs, between_runs)) for _ in range(studies)]
    return np.mean([interval.low <= 0 <= interval.high for interval in intervals])


def percentile(values):
    """The interval that is too short for few patients."""
    result = scipy_bootstrap((values[:, 0],), np.mean, method="percentile", n_resamples=999, rng=0)
    return Interval(value=0, low=result.confidence_interval.low, high=result.confidence_interval.high)


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr(module, "RESAMPLES", 999)


def test_for_few_skewed_patients_it_covers_the_truth_more_often_than_percentiles(few_resamples):
    assert coverage(15, 1, 0, 200) > coverage(15, 1, 0, 200, percentile) + 0.02


@pytest.mark.slow
@pytest.mark.parametrize("cases", [15, 74])
@pytest.mark.parametrize(("runs", "between_runs"), [(1, 0), (3, 0), (3, 0.03), (5, 0.03)])
def test_it_covers_the_truth_in_about_95_of_100_studies(few_resamples, cases, runs, between_runs):
    assert 0.91 <= coverage(cases, runs, between_runs, 1500) <= 0.98


@pytest.mark.parametrize("cases", [15, 74])
def test_the_truth_is_covered_in_most_of_200_studies(few_resamples, cases):
    assert 0.9 <= coverage(cases, 3, 0.03, 200) <= 0.99


def test_for_many_normal_patients_it_is_the_normal_interval():
    values = np.random.default_rng(3).normal(0.1, 0.2, 400)
    interval = Bootstrap(400).mean(values)
    half = norm.ppf(0.975) * values.std(ddof=1) / np.sqrt(400)
    assert interval.value == pytest.approx(values.mean())
    assert [interval.low, interval.high] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.002)


def test_runs_that_differ_widen_the_interval():
    random = np.random.default_rng(0)
    values = random.normal(0.1, 0.05, (30, 1)) + np.zeros((1, 4))
    shifted = values + np.array([-0.1, -0.03, 0.03, 0.1])
    alike, different = Bootstrap(30).mean(values), Bootstrap(30).mean(shifted)
    assert alike.value == pytest.approx(different.value)
    assert different.high - different.low > 2 * (alike.high - alike.low)


def test_the_difference_of_other_runs_subtracts_means():
    random = np.random.default_rng(1)
    first, second = random.normal(0.5, 0.1, (20, 3)), random.normal(0.4, 0.1, (20, 2))
    interval = Bootstrap(20).difference(first, second)
    assert interval.value == pytest.approx(first.mean() - second.mean())
    assert interval.low < interval.value < interval.high
    reverse = Bootstrap(20).difference(second, first)
    assert reverse.value == pytest.approx(-interval.value)


def test_an_interval_does_not_depend_on_what_was_computed_before():
    random = np.random.default_rng(2)
    values, others = random.normal(0.1, 0.1, (12, 3)), random.normal(0.2, 0.1, (12, 5))
    bootstrap = Bootstrap(12)
    bootstrap.difference(others, values)
    assert bootstrap.mean(values) == Bootstrap(12).mean(values)


def test_a_difference_in_dice_is_cut_at_its_limits():
    assert Interval(value=-0.2, low=-10.3, high=1.3).cut(1) == Interval(value=-0.2, low=-1, high=1)
    assert math.isnan(Interval(value=0.5, low=math.nan, high=math.nan).cut(1).low)


def test_a_constant_has_an_interval_without_width_and_one_case_has_none():
    constant = Bootstrap(9).mean(np.full((9, 2), 0.25))
    assert [constant.value, constant.low, constant.high] == pytest.approx([0.25] * 3)
    single = Bootstrap(1).mean(np.array([0.25]))
    assert single.value == 0.25
    assert np.isnan([single.low, single.high]).all()
    assert not single.excludes_zero


def test_two_cases_have_an_interval_as_wide_as_students():
    """Half of the resamples hold one case twice and have no spread of their own."""
    interval = Bootstrap(2).mean(np.array([0.1, 0.3]))
    assert [interval.low, interval.high] == pytest.approx([0.2 - 12.706 * 0.1, 0.2 + 12.706 * 0.1], abs=1e-3)


def test_the_share_of_a_proportional_part_is_exact():
    """Resampled numerator and denominator come from the same patients."""
    whole = np.random.default_rng(4).normal(0.2, 0.1, 25)
    share = Bootstrap(25).share(0.4 * whole, whole)
    assert [share.value, share.low, share.high] == pytest.approx([0.4] * 3)


def test_the_share_has_scipys_bca_interval():
    random = np.random.default_rng(4)
    whole = random.normal(0.2, 0.1, 25)
    part = 0.5 * whole + random.normal(0, 0.05, 25)
    share = Bootstrap(25).share(part, whole)
    result = scipy_bootstrap(
        (part, whole), lambda a, b: a.mean() / b.mean(), paired=True, method="BCa", vectorized=False, rng=7
    )
    assert [share.low, share.high] == pytest.approx(list(result.confidence_interval), abs=0.01)


@pytest.mark.parametrize(("low", "high", "excludes"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False)])
def test_an_interval_tells_whether_it_excludes_0(low, high, excludes):
    assert Interval(value=0, low=low, high=high).excludes_zero is excludes
