"""The verdict's rules, one by one and at their edges."""

import math

import pytest

from nnunetv2_hlfd.report.bootstrap import Interval
from nnunetv2_hlfd.report.verdict import decide


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.001, 0.03, "helped"),
        (0.0, 0.03, "not worse"),
        (-0.0099, 0.03, "not worse"),
        (-0.009, -0.001, "not worse"),  # worse, but by less than anybody minds
        (-0.01, 0.03, "not known"),
        (-0.03, 0.0, "not known"),
        (-0.03, -0.001, "worse"),
    ],
)
def test_the_first_rule_that_holds_is_the_verdict(low, high, word):
    assert decide(Interval(value=(low + high) / 2, low=low, high=high), 0.01, 20).word == word


def test_an_unknown_one_says_how_many_cases_it_would_take():
    """An interval four times too wide needs sixteen times the cases."""
    interval = Interval(value=0, low=-0.04, high=0.04)
    assert decide(interval, 0.01, 20).num_cases == 320
    assert decide(interval, 0.0, 20).num_cases is None
    assert decide(Interval(value=0, low=math.nan, high=math.nan), 0.01, 1).num_cases is None


def test_a_wider_margin_forgives_more():
    assert decide(Interval(value=-0.01, low=-0.04, high=0.02), 0.05, 20).word == "not worse"
