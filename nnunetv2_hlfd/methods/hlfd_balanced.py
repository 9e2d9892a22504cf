r"""HLFD in a form that cannot outweigh the segmentation loss.

The printed form (Eq. 5) adds terms whose gradient is, at the start, many times that of the segmentation loss and points
against it (`docs/benchmarks/lgg_2d.md`). Here the final map's term (Eq. 4) takes its weight from the segmentation loss,
as soft labels, and the gradients of the other three are limited by the setting `balance`.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from nnunetv2_hlfd.distillation.method import Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.distillation.taps import Stage
from nnunetv2_hlfd.methods.hlfd import HLFD
from nnunetv2_hlfd.methods.soft_label import soft_label_loss, soft_label_term
from nnunetv2_hlfd.settings.settings import Settings


class HLFDBalanced(HLFD):
    r"""L = (1 - a) L_seg + a ipd + k (beta (ufd + ifd) + lambda upd), a the setting teacher_share, k from `balance`.

    ufd, ifd and upd are HLFD's, with the deepest output as the student's early pixel map and the soft-label loss in
    place of the KL divergence; ipd is SoftLabel's term: the final map teaches every output in the segmentation loss.
    """

    title: ClassVar = "HLFD, balanced"
    summary: ClassVar = "HLFD with soft labels and limits on the gradients of its terms"
    segmentation_terms: ClassVar = frozenset({"ipd"})
    defaults: ClassVar = {"balance": "gate", "pixel_maps": "outputs", "pixel_loss": "soft"}

    def __init__(
        self, student_stages: Sequence[Stage], teacher_shape: TeacherShape, task: Task, settings: Settings
    ) -> None:
        super().__init__(student_stages, teacher_shape, task, settings)
        self.weights = {**self.weights, "ipd": settings.teacher_share}
        self.output_loss = soft_label_loss(settings, task)

    def _ipd(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> Tensor:
        return soft_label_term(self, self.output_loss, student, teacher, target)
