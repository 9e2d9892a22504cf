"""Numbers of a report as text."""

import math

from nnunetv2_hlfd.report.bootstrap import Interval


def format_spread(mean: float, deviation: float, digits: int = 3) -> str:
    """Mean ± standard deviation over runs; a single run has none."""
    if math.isnan(mean):
        return "-"
    return f"{mean:.{digits}f}" if math.isnan(deviation) else f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def format_number(value: float, digits: int) -> str:
    """A number, - where there is none."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def format_interval(interval: Interval, digits: int = 3) -> str:
    """A signed value with its 95 % interval; one case has none."""
    if math.isnan(interval.low):
        return f"{interval.value:+.{digits}f} (one case)"
    return f"{interval.value:+.{digits}f} [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"


def format_p(value: float) -> str:
    """A p-value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
