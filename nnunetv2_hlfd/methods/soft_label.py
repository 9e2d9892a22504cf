r"""SoftLabel: the segmentation loss itself learns from the teacher's final map beside the label.

Mixing labels with a teacher's probabilities is distillation's first form (Hinton, Vinyals, Dean; 2015;
arXiv 1503.02531). What a Dice loss makes of soft targets, and losses that are minimal at them: Wang et al., "Dice
Semimetric Losses", MICCAI 2023 (arXiv 2303.16296). HLFD's final-map term (Eq. 4) in the place where it does not compete
with the segmentation loss.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from nnunetv2_hlfd.distillation.method import FINAL, DistillationMethod, Roles, Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.distillation.taps import Stage
from nnunetv2_hlfd.losses.focal_dice import ignored_voxels
from nnunetv2_hlfd.losses.soft_labels import SoftLabelLoss, deep_soft_label_loss
from nnunetv2_hlfd.settings.settings import Settings


class SoftLabel(DistillationMethod):
    r"""L = (1 - a) L_seg(label) + a S(p^t), a the setting teacher_share.

    S is L_seg for soft targets (`losses.soft_labels`): equal to it at one-hot targets, minimal where the student's
    probabilities are the teacher's. p^t is the teacher's final map at temperature 1, averaged over the area of each
    output's voxels; every output of the student learns from it, with nnU-Net's deep-supervision weights. Voxels with
    the ignore label are taught by the teacher unless distill_ignored is false.
    """

    title: ClassVar = "Soft labels"
    summary: ClassVar = "the segmentation loss learns from the labels and the teacher's class probabilities"
    needs: ClassVar = frozenset({FINAL})
    segmentation_terms: ClassVar = frozenset({"soft_label"})

    def __init__(
        self, student_stages: Sequence[Stage], teacher_shape: TeacherShape, task: Task, settings: Settings
    ) -> None:
        super().__init__(student_stages, teacher_shape, task, settings)
        self.weights = {"soft_label": settings.teacher_share}
        self.loss = soft_label_loss(settings, task)

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return soft_label, unweighted."""
        return {"soft_label": soft_label_term(self, self.loss, student, teacher, target)}

    def roles(self) -> Roles:
        """No encoder stage plays a role."""
        return Roles(student={}, teacher={}, notes=["soft labels teach every output by the final map"])


def soft_label_loss(settings: Settings, task: Task) -> SoftLabelLoss:
    """The recipe's segmentation loss for soft labels on one output."""
    return SoftLabelLoss(
        recipe=settings.recipe,
        regions=task.regions,
        batch_dice=task.batch_dice,
        has_ignore_label=task.ignore_label is not None,
        ddp=task.ddp,
        soft_dice_share=settings.soft_dice_share,
    )


def soft_label_term(
    method: DistillationMethod, loss: SoftLabelLoss, student: Outputs, teacher: TeacherOutputs, target: Tensor
) -> Tensor:
    """The loss of every output of the student against the teacher's final map, with nnU-Net's weights."""
    task, ignored = method.task, None
    if not method.settings.distill_ignored:
        ignored = ignored_voxels(target, task.ignore_label, task.regions)
    probabilities = teacher.probabilities(0, 1.0, task.regions)
    return deep_soft_label_loss(loss, student.logits, task.output_weights, probabilities, ignored)
