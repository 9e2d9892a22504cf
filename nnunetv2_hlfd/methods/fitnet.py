r"""FitNet: hints from a middle layer (Romero et al.; ICLR 2015; arXiv 1412.6550)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunetv2_hlfd.distillation.method import FEATURES, DistillationMethod, Roles, Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.distillation.taps import Stage
from nnunetv2_hlfd.losses.resize import at_least_float32, resize
from nnunetv2_hlfd.settings.settings import Settings


class FitNet(DistillationMethod):
    r"""fitnet = mean of (resize(r(z^s)) - z^t)^2 over elements and batch, r a learned 1x1 regressor.

    z^t is the teacher's late stage, z^s the student's stage nearest to it in stride, resized to the teacher's grid.
    Several teacher networks have different features: each gets a regressor of its own, and the terms are averaged.
    Deviation: the source first trains the student's lower half on the hint alone; here the hint is a term of one
    training, with weight 10 as in segmentation ports of it (CIRKD's).
    """

    title: ClassVar = "FitNet"
    summary: ClassVar = "the student's middle features learn to equal the teacher's, through a learned layer"
    needs: ClassVar = frozenset({FEATURES})
    source_loss: ClassVar = "cross_entropy"

    def __init__(
        self, student_stages: Sequence[Stage], teacher_shape: TeacherShape, task: Task, settings: Settings
    ) -> None:
        super().__init__(student_stages, teacher_shape, task, settings)
        self.weights = {"fitnet": 10.0}
        self.hint = self.teacher_taps.late
        self.guided = self.student_partner(self.hint)
        channels = student_stages[self.guided].channels, teacher_shape.stages[self.hint].channels
        self.regressors = nn.ModuleList(self.projection(*channels) for _ in range(teacher_shape.networks))

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return fitnet, unweighted."""
        guided = resize(at_least_float32(student.features[self.guided]), teacher.size(self.hint))
        errors = [
            functional.mse_loss(regressor(guided), at_least_float32(network.features[self.hint]))
            for regressor, network in zip(self.regressors, teacher.networks, strict=True)
        ]
        return {"fitnet": torch.stack(errors).mean()}

    def roles(self) -> Roles:
        """Hint and guided stage."""
        return Roles(student={self.guided: "guided"}, teacher={self.hint: "hint"})
