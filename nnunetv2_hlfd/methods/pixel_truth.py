r"""A control for HLFD's pixel level: the same heads on the same stages, taught by the ground truth, not by the teacher.

What HLFD gains over this is what the teacher's maps know beyond the annotation; what this gains over the student alone
is deep supervision of the encoder.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from nnunetv2_hlfd.distillation.method import Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import TeacherOutputs
from nnunetv2_hlfd.distillation.taps import Stage
from nnunetv2_hlfd.losses.resize import resize
from nnunetv2_hlfd.methods.emkd import class_membership
from nnunetv2_hlfd.methods.hlfd import HLFD
from nnunetv2_hlfd.settings.settings import Settings


class PixelTruth(HLFD):
    """HLFD with p_mid^t and p_late^t (Eq. 3 and 4) replaced by the annotation, averaged over the cells of their grids.

    The annotation is a hard label, so the temperature is 1 whatever the setting; voxels with the ignore label teach
    nothing whatever distill_ignored says. ufd and ifd (beta) still come from the teacher.
    """

    title: ClassVar = "HLFD with ground truth for pixel maps"
    summary: ClassVar = "a control: HLFD whose pixel maps learn from the labels instead of the teacher"

    def __init__(
        self, student_stages: Sequence[Stage], teacher_shape: TeacherShape, task: Task, settings: Settings
    ) -> None:
        super().__init__(student_stages, teacher_shape, task, replace(settings, temperature=1.0, distill_ignored=False))

    def _teacher_mid(self, teacher: TeacherOutputs, target: Tensor) -> Tensor:
        return resize(self._teacher_late(teacher, target), super()._teacher_mid(teacher, target).shape[2:])

    def _teacher_late(self, teacher: TeacherOutputs, target: Tensor) -> Tensor:
        truth = class_membership(target, self.task)[:, -self.task.num_heads :]  # regions: without what lies in none
        return truth.to(super()._teacher_late(teacher, target).dtype)
