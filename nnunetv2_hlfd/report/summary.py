"""The numbers of a report: means over cases and runs, paired comparisons, the gap and what of it is recovered."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from nnunetv2_hlfd.report.arms import Arm, student_alone
from nnunetv2_hlfd.report.statistics import LEAST_GAP, Bootstrap, Interval, holm, wilcoxon_p

MEAN = "mean of labels"
LOSS = 0.05  # Dice; a case that loses more is counted
_METRICS = ("dice", "rvd", "absolute_rvd")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Paired difference in Dice of two arms over the cases, averaged over seeds first.

    Attributes:
        wilcoxon: two-sided p; `holm`: adjusted over all comparisons of the same label.
        losing: share of the cases in which `arm` is worse by more than 0.05.
    """

    arm: str
    reference: str
    label: str
    num_cases: int
    difference: Interval
    losing: float
    wilcoxon: float
    holm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How much better the teacher is than the student alone; `recovered`: arm -> share of it, where there is one."""

    label: str
    difference: Interval
    recovered: dict[str, Interval]

    @property
    def is_there(self) -> bool:
        """At least 0.02 Dice, and its interval excludes 0; else there is nothing to distil."""
        return self.difference.value >= LEAST_GAP and self.difference.low > 0


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All tables, tidy.

    Attributes:
        cases: arm, run, seed, fold, case, label, dice, n_pred, n_ref, rvd, absolute_rvd.
        runs: mean over the cases for each arm, run and label.
        arms: mean and standard deviation over the runs for each arm and label; `without_rvd`: cases without the label.
    """

    cases: pd.DataFrame
    runs: pd.DataFrame
    arms: pd.DataFrame
    comparisons: list[Comparison]
    gaps: list[Gap]


def summarize(teacher: Arm, students: Sequence[Arm], folds: Sequence[int]) -> Summary:
    """Compute every number of the report that needs no image."""
    arms = [teacher, *students]
    cases = pd.concat([_cases(arm, folds) for arm in arms], ignore_index=True)
    runs = cases.groupby(["arm", "run", "seed", "label"], sort=False, dropna=False)[list(_METRICS)].mean().reset_index()
    per_case = cases.pivot_table(index=["label", "case"], columns="arm", values="dice", aggfunc="mean", dropna=False)
    labels = list(dict.fromkeys(cases["label"]))
    bootstrap = Bootstrap(cases["case"].nunique())
    tables = {label: per_case.loc[label] for label in labels}
    comparisons = [comparison for label in labels for comparison in _compare(label, tables[label], students, bootstrap)]
    gaps = [gap for label in labels if (gap := _gap(label, tables[label], teacher, students, bootstrap))]
    return Summary(cases=cases, runs=runs, arms=_over_runs(runs, cases), comparisons=comparisons, gaps=gaps)


def _cases(arm: Arm, folds: Sequence[int]) -> pd.DataFrame:
    """Cases of all runs of an arm with RVD = |P| / |G| - 1 (undefined, NaN, without true voxels), and their mean."""
    tables = []
    for model in arm.models:
        table = model.cases[model.cases["fold"].isin(folds)].drop(columns=["reference", "prediction"])
        table = table.assign(arm=arm.name, run=model.run, seed=model.seed)
        if len(model.labels) > 1:
            means = table.groupby(["arm", "run", "seed", "fold", "case"], sort=False, dropna=False)["dice"].mean()
            table = pd.concat([table, means.reset_index().assign(label=MEAN)], ignore_index=True)
        tables.append(table)
    cases = pd.concat(tables, ignore_index=True)
    rvd = cases["n_pred"] / cases["n_ref"].where(cases["n_ref"] > 0) - 1
    columns = ["arm", "run", "seed", "fold", "case", "label", "dice", "n_pred", "n_ref", "rvd", "absolute_rvd"]
    return cases.assign(rvd=rvd, absolute_rvd=rvd.abs())[columns]


def _over_runs(runs: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation (n - 1) over the runs; a single run has none."""
    groups = runs.groupby(["arm", "label"], sort=False)
    table = groups[list(_METRICS)].agg(["mean", "std"])
    table.columns = ["_".join(column) for column in table.columns]
    excluded = cases[(cases["label"] != MEAN) & ~(cases["n_ref"] > 0)].groupby(["arm", "label"])["case"].nunique()
    table["without_rvd"] = excluded.reindex(table.index).fillna(0).astype(int)
    table.insert(0, "runs", groups.size())
    return table.reset_index()


def _compare(label: str, dice: pd.DataFrame, students: Sequence[Arm], bootstrap: Bootstrap) -> list[Comparison]:
    """Each arm with the student alone first, then each pair of the others; Holm over all of them."""
    alone = student_alone(students)
    others = [arm.name for arm in students if arm is not alone]
    pairs = [(name, alone.name) for name in others] if alone else []
    pairs += [(second, first) for first, second in combinations(others, 2)]
    found = []
    for arm, reference in pairs:
        differences = (dice[arm] - dice[reference]).to_numpy(dtype=float)
        present = differences[np.isfinite(differences)]
        if not len(present):
            continue
        found.append(
            Comparison(
                arm=arm,
                reference=reference,
                label=label,
                num_cases=len(present),
                difference=bootstrap.mean(differences),
                losing=float(np.mean(present < -LOSS)),
                wilcoxon=wilcoxon_p(differences),
            )
        )
    adjusted = holm([comparison.wilcoxon for comparison in found])
    return [replace(comparison, holm=p) for comparison, p in zip(found, adjusted, strict=True)]


def _gap(label: str, dice: pd.DataFrame, teacher: Arm, students: Sequence[Arm], bootstrap: Bootstrap) -> Gap | None:
    alone = student_alone(students)
    if alone is None:
        return None
    whole = (dice[teacher.name] - dice[alone.name]).to_numpy(dtype=float)
    if not np.isfinite(whole).any():
        return None
    gap = Gap(label=label, difference=bootstrap.mean(whole), recovered={})
    if gap.is_there:
        for arm in students:
            if arm is not alone:
                part = (dice[arm.name] - dice[alone.name]).to_numpy(dtype=float)
                gap.recovered[arm.name] = bootstrap.share(part, whole)
    return gap
