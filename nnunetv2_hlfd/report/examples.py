"""The cases that pictures show."""

from collections.abc import Sequence

import pandas as pd

from nnunetv2_hlfd.report.arms import Arm


def cases_with(cases: pd.DataFrame, label: str) -> list[str]:
    """Names of the cases that truly have a label, sorted."""
    return sorted(cases.loc[(cases["label"] == label) & (cases["n_ref"] > 0), "case"].unique())


def choose_examples(cases: pd.DataFrame, label: str, students: Sequence[Arm]) -> dict[str, tuple[str, float]]:
    """The worst, the median and the best case of the students, none of which is favored.

    Their order is that of the mean over the student arms of the label's Dice, each arm averaged over its seeds first;
    equal cases are ordered by name; of an even number, the lower one is the median.

    Args:
        cases: of the summary.
        label: cases without it are left out.
        students: their arms.

    Returns:
        worst, median, best -> case and its mean Dice; fewer where there are fewer cases.
    """
    present = cases[(cases["label"] == label) & cases["case"].isin(cases_with(cases, label))]
    per_arm = present[present["arm"].isin([arm.name for arm in students])].groupby(["case", "arm"])["dice"].mean()
    order = per_arm.groupby("case").mean().sort_index().sort_values(kind="stable")
    places = {"worst": 0, "median": (len(order) - 1) // 2, "best": len(order) - 1}
    chosen: dict[str, tuple[str, float]] = {}
    for name, place in places.items():
        case = str(order.index[place])
        if case not in [other for other, _ in chosen.values()]:
            chosen[name] = (case, float(order.iloc[place]))
    return chosen
