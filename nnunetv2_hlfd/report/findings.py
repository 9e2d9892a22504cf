"""Everything that a report has measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from nnunetv2_hlfd.report.arms import Arm
from nnunetv2_hlfd.report.costs import Cost, Curve
from nnunetv2_hlfd.report.page import Section
from nnunetv2_hlfd.report.summary import MEAN, Summary


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that was measured; `margin`: of non-inferiority, in Dice."""

    teacher: Arm
    students: Sequence[Arm]
    folds: Sequence[int]
    summary: Summary
    recall: pd.DataFrame
    without_lesions: Sequence[str]
    costs: Mapping[str, Cost]
    curves: Mapping[str, Sequence[Curve]]
    margin: float
    more: Sequence[Section] = ()

    @property
    def arms(self) -> list[Arm]:
        """The teacher first."""
        return [self.teacher, *self.students]

    @property
    def labels(self) -> list[str]:
        """The mean of all labels first, where there are several."""
        labels = list(self.teacher.models[0].labels)
        return labels if len(labels) == 1 else [MEAN, *labels]

    @property
    def main_label(self) -> str:
        """What pictures show: the only label, or the mean of all."""
        return self.labels[0]

    @property
    def num_cases(self) -> int:
        """Validation cases."""
        return int(self.summary.cases["case"].nunique())
