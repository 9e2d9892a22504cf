r"""DSKD-style: deeply supervised knowledge distillation, after DSKD (Luo et al.; 2023).

The HLFD paper compares with it as "HIFD" and extends it by feedback at the pixel level. The source is about
classification and its equations could not be confirmed; this is a port to segmentation in its style.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from nnunetv2_hlfd.distillation.method import ATTENTION, FINAL, DistillationMethod, Roles, Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.distillation.requests import MapRequest, attention_request
from nnunetv2_hlfd.distillation.taps import Stage, student_taps
from nnunetv2_hlfd.losses.divergence import mean_over_processes
from nnunetv2_hlfd.losses.resize import at_least_float32, resize
from nnunetv2_hlfd.settings.settings import Settings


class DSKD(DistillationMethod):
    r"""DSKD-style: the teacher's last layer supervises every shallow stage of the student, the worst most.

    For the student's stages l (first strided one and the next, at most three):
        dskd_feature = sum_l a_l d_l, d_l = || A(z_l^s) - A(z_late^t) ||^2; weight beta (0.9);
        dskd_pixel = sum_l b_l k_l, k_l = T^2 KL(p^t || p(h_l(z_l^s))) on the stage's grid; weight lambda (0.1).

    Loss-based weights: a = softmax(d), b = softmax(k) over the stages, without gradient. h_l are learned 1x1 heads
    (auxiliary classifiers), p^t the teacher's final map, area-averaged. beta and lambda are those of the HLFD paper.
    """

    title: ClassVar = "DSKD-style (paper: HIFD)"
    summary: ClassVar = "the teacher's last layer supervises all shallow stages of the student (the paper's HIFD)"
    needs: ClassVar = frozenset({FINAL, ATTENTION})
    source_loss: ClassVar = "focal_dice"

    def __init__(
        self, student_stages: Sequence[Stage], teacher_shape: TeacherShape, task: Task, settings: Settings
    ) -> None:
        super().__init__(student_stages, teacher_shape, task, settings)
        self.weights = {"dskd_feature": settings.beta, "dskd_pixel": settings.lambda_}
        taps = student_taps(student_stages)
        self.stages = (taps.early, *taps.mids)
        self.heads = nn.ModuleDict({str(stage): self.head(stage) for stage in self.stages})

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return dskd_feature and dskd_pixel, unweighted."""
        late = self.teacher_taps.late
        distances = [self.attention_distance(student, teacher, stage, late) for stage in self.stages]
        divergences = [self._pixel(stage, student, teacher, target) for stage in self.stages]
        return {"dskd_feature": loss_weighted(distances), "dskd_pixel": loss_weighted(divergences)}

    def requests(self) -> list[MapRequest]:
        """The teacher's attention maps."""
        return [attention_request((self.teacher_taps.late,), self.settings.attention_exponent)]

    def roles(self) -> Roles:
        """Supervised stages and the teacher's last layer."""
        return Roles(student=dict.fromkeys(self.stages, "shallow"), teacher={self.teacher_taps.late: "late"})

    def _pixel(self, stage: int, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> Tensor:
        logits = self.heads[str(stage)](at_least_float32(student.features[stage]))
        late = teacher.probabilities(0, self.settings.temperature, self.task.regions)
        return self.divergence(logits, resize(late, logits.shape[2:]), target, self.settings.temperature)


def loss_weighted(losses: Sequence[Tensor]) -> Tensor:
    """Sum of scalars weighted by their own softmax: the largest weighs most. No gradient reaches the weights.

    Several processes have the same weights, those of the whole batch.
    """
    values = torch.stack(list(losses))
    return (mean_over_processes(values).softmax(dim=0) * values).sum()
