r"""AT: attention transfer (Zagoruyko, Komodakis; ICLR 2017; arXiv 1612.03928)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from nnunetv2_hlfd.distillation.method import ATTENTION, DistillationMethod, Roles, Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.distillation.requests import MapRequest, attention_request
from nnunetv2_hlfd.distillation.taps import Stage
from nnunetv2_hlfd.settings.settings import Settings


class AT(DistillationMethod):
    r"""at = sum_j || A(z_j^s) - A(z_j^t) ||^2 over the student's strided stages j and the teacher's nearest in stride.

    A(z) = normalized channel mean of |z|^p, p = 2 (the setting attention_exponent), the student resized to the
    teacher's grid. Squared L2 norm, mean over the batch. Deviation: the source's text takes the norm itself, its code
    the mean of squares over the positions times 1000, so its weight depends on the map's size; here the sum, weight 1,
    which is the code's on a map of 32 x 32.
    """

    title: ClassVar = "AT"
    summary: ClassVar = "attention transfer: strided stages learn the attention maps of the teacher's nearest stages"
    needs: ClassVar = frozenset({ATTENTION})
    source_loss: ClassVar = "cross_entropy"
    defaults: ClassVar = {"attention_exponent": 2.0}

    def __init__(
        self, student_stages: Sequence[Stage], teacher_shape: TeacherShape, task: Task, settings: Settings
    ) -> None:
        super().__init__(student_stages, teacher_shape, task, settings)
        self.weights = {"at": 1.0}
        strided = [index for index, stage in enumerate(student_stages) if max(stage.stride) > 1]
        self.pairs = [(index, self.teacher_partner(index)) for index in strided]

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return at, unweighted."""
        distances = [self.attention_distance(student, teacher, *pair) for pair in self.pairs]
        return {"at": torch.stack(distances).sum()}

    def requests(self) -> list[MapRequest]:
        """The teacher's attention maps."""
        return [attention_request((stage,), self.settings.attention_exponent) for _, stage in self.pairs]

    def roles(self) -> Roles:
        """Numbered pairs."""
        return Roles(
            student={student: f"pair {number}" for number, (student, _) in enumerate(self.pairs, 1)},
            teacher=_numbered([teacher for _, teacher in self.pairs]),
        )


def _numbered(stages: Sequence[int]) -> dict[int, str]:
    """Stage -> the numbers of its pairs; several student stages may share a teacher's."""
    return {
        stage: "pair " + ", ".join(str(number) for number, other in enumerate(stages, 1) if other == stage)
        for stage in stages
    }
