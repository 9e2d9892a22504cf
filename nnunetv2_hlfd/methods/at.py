r"""AT: attention transfer (Zagoruyko, Komodakis; ICLR 2017; arXiv 1612.03928)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from nnunetv2_hlfd.distillation.method import DistillationMethod, Outputs, Roles, Task, TeacherOutputs, TeacherShape
from nnunetv2_hlfd.distillation.taps import Stage
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.training.distillation_trainer import DistillationTrainer


class AT(DistillationMethod):
    r"""at = sum_j || A(z_j^s) - A(z_j^t) ||^2 over the student's strided stages j and the teacher's nearest in stride.

    A(z) = normalized channel mean of |z|^p, p = 2 (the setting attention_exponent), the student resized to the
    teacher's grid. Squared L2 norm, mean over the batch. Deviation: the source's text takes the norm itself, its code
    the mean of squares over the positions times 1000, so its weight depends on the map's size; here the sum, weight 1,
    which is the code's on a map of 32 x 32.
    """

    title: ClassVar = "AT"

    def __init__(self, student_stages: Sequence[Stage], teacher: TeacherShape, task: Task, settings: Settings) -> None:
        super().__init__(student_stages, teacher, task, settings)
        self.weights = {"at": 1.0}
        strided = [index for index, stage in enumerate(student_stages) if max(stage.stride) > 1]
        self.pairs = [(index, self.teacher_partner(index)) for index in strided]

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return at, unweighted."""
        distances = [self.attention_distance(student, teacher, *pair) for pair in self.pairs]
        return {"at": torch.stack(distances).sum()}

    def roles(self) -> Roles:
        """Numbered pairs."""
        return Roles(
            student={mine: f"pair {number}" for number, (mine, _) in enumerate(self.pairs, 1)},
            teacher=_numbered([theirs for _, theirs in self.pairs]),
        )


class nnUNetTrainerAT(DistillationTrainer):
    """Student distilled by attention transfer."""

    method_class = AT
    defaults: ClassVar = {"attention_exponent": 2.0}


def _numbered(stages: Sequence[int]) -> dict[int, str]:
    """Stage -> the numbers of its pairs; several student stages may share a teacher's."""
    return {
        stage: "pair " + ", ".join(str(number) for number, each in enumerate(stages, 1) if each == stage)
        for stage in stages
    }
