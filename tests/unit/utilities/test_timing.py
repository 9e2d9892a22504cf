"""Seconds of calls."""

import time

from nnunetv2_hlfd.utilities.timing import seconds_of, seconds_of_each


def test_the_seconds_of_a_call_are_those_it_takes():
    assert 0.05 <= seconds_of(lambda: time.sleep(0.05)) < 1


def test_the_first_call_is_not_counted():
    naps = iter([0.3, 0.01, 0.02])
    seconds = seconds_of_each(lambda: time.sleep(next(naps)), 2)
    assert seconds.shape == (2,)
    assert 0.01 <= seconds[0] < 0.3
    assert 0.02 <= seconds[1] < 0.3
