"""Did it help? One word for a paired difference in Dice, by fixed rules."""

import math
from dataclasses import dataclass

from nnunetv2_hlfd.report.bootstrap import Interval

MARGIN = 0.01  # Dice
RULES = (
    "helped: the interval of the difference lies above 0",
    "not worse: its lower bound is above minus the margin (non-inferior)",
    "worse: the interval lies below 0",
    "not known: anything else",
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The first of RULES that holds.

    Attributes:
        word: helped, not worse, worse or not known.
        num_cases: how many cases it would take until the interval reaches no further than the margin to each side, if
            the spread stays as it is; None where the verdict is known or nothing can be said.
    """

    word: str
    num_cases: int | None = None


def decide(difference: Interval, margin: float, num_cases: int) -> Verdict:
    """Judge a paired difference.

    Args:
        difference: in Dice.
        margin: of non-inferiority, in Dice; to be chosen before the results are seen.
        num_cases: that the difference is the mean of.
    """
    if difference.low > 0:
        return Verdict(word="helped")
    if difference.low > -margin:
        return Verdict(word="not worse")
    if difference.high < 0:
        return Verdict(word="worse")
    half = (difference.high - difference.low) / 2
    known = math.isfinite(half) and margin > 0
    return Verdict(word="not known", num_cases=math.ceil(num_cases * (half / margin) ** 2) if known else None)
