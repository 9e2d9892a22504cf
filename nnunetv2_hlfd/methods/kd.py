r"""KD: knowledge distillation on the final map (Hinton, Vinyals, Dean; 2015; arXiv 1503.02531)."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from nnunetv2_hlfd.distillation.method import FINAL, DistillationMethod, Roles, Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.distillation.taps import Stage
from nnunetv2_hlfd.settings.settings import Settings


class KD(DistillationMethod):
    r"""kd = T^2 KL(p^t || p^s), p = softmax(logits / T) of the full-resolution output, mean over voxels.

    Regions: one Bernoulli variable per channel, summed. Deviation: the source mixes alpha T^2 KL + (1 - alpha) CE;
    here, as for every method, the segmentation loss keeps weight 1, and kd has weight 1 beside it.
    """

    title: ClassVar = "KD"
    summary: ClassVar = "knowledge distillation: the student learns the teacher's softened class probabilities"
    needs: ClassVar = frozenset({FINAL})
    source_loss: ClassVar = "cross_entropy"

    def __init__(
        self, student_stages: Sequence[Stage], teacher_shape: TeacherShape, task: Task, settings: Settings
    ) -> None:
        super().__init__(student_stages, teacher_shape, task, settings)
        self.weights = {"kd": 1.0}

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return kd, unweighted."""
        return {"kd": self.final_divergence(student, teacher, target, self.settings.temperature)}

    def roles(self) -> Roles:
        """No encoder stage plays a role."""
        return Roles(student={}, teacher={}, notes=["KD teaches the final map only"])
