"""The numbers of a report: means over cases and runs, paired comparisons, the gap and what of it is recovered."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from nnunetv2_hlfd.report.arms import Arm, reference_of
from nnunetv2_hlfd.report.bootstrap import Bootstrap, Interval
from nnunetv2_hlfd.report.paired import PairedValues
from nnunetv2_hlfd.report.statistics import LEAST_GAP, holm, wilcoxon_p

MEAN = "mean of labels"
LOSS = 0.05  # Dice; a case that loses more is counted
_METRICS = ("dice", "nnunet_dice", "rvd", "absolute_rvd", "specificity")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Paired difference in Dice of two arms over the cases.

    Attributes:
        is_question: whether it is an arm against its student alone, which the report is about; the others are
            exploratory.
        same_architecture: whether both trained the same network.
        losing: share of the cases in which `arm` is worse by more than 0.05.
        wilcoxon: two-sided p over the cases, each averaged over its runs; `holm`: adjusted over all comparisons of the
            same label that are the question, or over all exploratory ones.
    """

    arm: str
    reference: str
    label: str
    is_question: bool
    same_architecture: bool
    num_cases: int
    difference: Interval
    losing: float
    wilcoxon: float
    holm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How much better the teacher is than a student alone; `recovered`: arm -> share of it, where there is one."""

    label: str
    alone: str
    difference: Interval
    recovered: dict[str, Interval]

    @property
    def is_there(self) -> bool:
        """At least 0.02 Dice, and its interval excludes 0; else there is nothing to distill."""
        return self.difference.value >= LEAST_GAP and self.difference.low > 0


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All tables, tidy.

    Attributes:
        cases: arm, run, seed, fold, case, label, dice, nnunet_dice, n_pred, n_ref, rvd, absolute_rvd, specificity.
        runs: mean over the cases for each arm, run and label.
        arms: mean and standard deviation over the runs for each arm and label; `absent`: cases without the label.
        to_teacher: each student against the teacher.
    """

    cases: pd.DataFrame
    runs: pd.DataFrame
    arms: pd.DataFrame
    comparisons: list[Comparison]
    to_teacher: list[Comparison]
    gaps: list[Gap]


def summarize(teacher: Arm, students: Sequence[Arm], folds: Sequence[int]) -> Summary:
    """Compute every number of the report that needs no image."""
    arms = [teacher, *students]
    cases = pd.concat([_cases(arm, folds) for arm in arms], ignore_index=True)
    runs = cases.groupby(["arm", "run", "seed", "label"], sort=False, dropna=False)[list(_METRICS)].mean().reset_index()
    bootstrap = Bootstrap(cases["case"].nunique())
    tables = [PairedValues(cases, label, "dice", arms, bootstrap, limit=1) for label in dict.fromkeys(cases["label"])]
    comparisons = [comparison for table in tables for comparison in _compare(table, students)]
    gaps = [gap for table in tables for gap in _gaps(table, teacher, students)]
    to_teacher = [_comparison(table, arm, teacher, is_question=False) for table in tables for arm in students]
    return Summary(
        cases=cases,
        runs=runs,
        arms=_over_runs(runs, cases),
        comparisons=comparisons,
        to_teacher=to_teacher,
        gaps=gaps,
    )


def _cases(arm: Arm, folds: Sequence[int]) -> pd.DataFrame:
    """Cases of all runs of an arm, and the mean over their labels.

    Dice is 1 where neither truth nor prediction has the label; nnU-Net's, kept beside it, is NaN there and would leave
    out the case in one arm and count a false positive as 0 in another. RVD = |P| / |G| - 1 and specificity are NaN
    with and without true voxels.
    """
    tables = []
    for model in arm.models:
        table = model.cases[model.cases["fold"].isin(folds)].drop(columns=["reference", "prediction"])
        absent, empty = table["n_ref"] == 0, table["n_pred"] == 0
        table = table.assign(
            arm=arm.name,
            run=model.run,
            seed=model.seed,
            nnunet_dice=table["dice"],
            dice=table["dice"].mask(absent & empty, 1.0),
            specificity=empty.astype(float).where(absent),
        )
        if len(model.labels) > 1:
            keys = ["arm", "run", "seed", "fold", "case"]
            means = table.groupby(keys, sort=False, dropna=False)[["dice", "nnunet_dice"]].mean()
            table = pd.concat([table, means.reset_index().assign(label=MEAN)], ignore_index=True)
        tables.append(table)
    cases = pd.concat(tables, ignore_index=True)
    rvd = cases["n_pred"] / cases["n_ref"].where(cases["n_ref"] > 0) - 1
    columns = ["arm", "run", "seed", "fold", "case", "label", "dice", "nnunet_dice", "n_pred", "n_ref"]
    return cases.assign(rvd=rvd, absolute_rvd=rvd.abs())[[*columns, "rvd", "absolute_rvd", "specificity"]]


def _over_runs(runs: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation (n - 1) over the runs; a single run has none."""
    groups = runs.groupby(["arm", "label"], sort=False)
    table = groups[list(_METRICS)].agg(["mean", "std"])
    table.columns = ["_".join(column) for column in table.columns]
    absent = cases[cases["n_ref"] == 0].groupby(["arm", "label"])["case"].nunique()
    table["absent"] = absent.reindex(table.index).fillna(0).astype(int)
    table.insert(0, "runs", groups.size())
    return table.reset_index()


def _compare(dice: PairedValues, students: Sequence[Arm]) -> list[Comparison]:
    """Each arm with its student alone first, then each other pair."""
    references = {arm.name: reference_of(arm, students) for arm in students if not arm.is_student_alone}
    pairs = [(arm, alone) for arm in students if (alone := references.get(arm.name))]
    asked = {frozenset((arm.name, alone.name)) for arm, alone in pairs}
    pairs += [
        (second, first)
        for first, second in combinations(students, 2)
        if frozenset((first.name, second.name)) not in asked
    ]
    found = [
        _comparison(dice, arm, reference, is_question=frozenset((arm.name, reference.name)) in asked)
        for arm, reference in pairs
    ]
    return [comparison for is_question in (True, False) for comparison in _adjusted(found, is_question)]


def _comparison(dice: PairedValues, arm: Arm, reference: Arm, is_question: bool) -> Comparison:
    same = arm.architecture == reference.architecture
    differences = dice.mean(arm) - dice.mean(reference)
    return Comparison(
        arm=arm.name,
        reference=reference.name,
        label=dice.label,
        is_question=is_question and same,
        same_architecture=same,
        num_cases=len(differences),
        difference=dice.difference(arm, reference),
        losing=float(np.mean(differences < -LOSS)),
        wilcoxon=wilcoxon_p(differences),
    )


def _adjusted(comparisons: Sequence[Comparison], is_question: bool) -> list[Comparison]:
    family = [comparison for comparison in comparisons if comparison.is_question is is_question]
    adjusted = holm([comparison.wilcoxon for comparison in family])
    return [replace(comparison, holm=p) for comparison, p in zip(family, adjusted, strict=True)]


def _gaps(dice: PairedValues, teacher: Arm, students: Sequence[Arm]) -> list[Gap]:
    """One for each student alone that other arms are compared with, or for each where nobody is."""
    methods = [arm for arm in students if not arm.is_student_alone]
    gaps = []
    for alone in (arm for arm in students if arm.is_student_alone):
        compared = [arm for arm in methods if reference_of(arm, students) is alone]
        if methods and not compared:
            continue
        gap = Gap(label=dice.label, alone=alone.name, difference=dice.difference(teacher, alone), recovered={})
        if gap.is_there:
            whole = dice.mean(teacher) - dice.mean(alone)
            for arm in (arm for arm in compared if arm.architecture == alone.architecture):
                gap.recovered[arm.name] = dice.bootstrap.share(dice.mean(arm) - dice.mean(alone), whole)
        gaps.append(gap)
    return gaps
