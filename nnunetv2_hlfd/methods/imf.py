r"""IMF-style: intermediate feature distillers with an attentive logit, after IMF (Kim et al.; IJCAI 2023).

The HLFD paper compares with it as "IFD". The source is about classification, its equations could not be confirmed, and
it keeps the distillers at inference. This is a port to segmentation in its style.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from nnunetv2_hlfd.distillation.method import FINAL, DistillationMethod, Roles, Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.distillation.taps import Stage, student_taps
from nnunetv2_hlfd.losses.resize import at_least_float32, resize
from nnunetv2_hlfd.settings.settings import Settings


class IMF(DistillationMethod):
    r"""IMF-style: branches on the student's middle stages learn from the teacher, alone and merged.

    Branch j (distiller): depthwise 3x3, pointwise 1x1, normalization, ReLU, 1x1 to logits b_j.
        imf_branches = 1/J sum_j T^2 KL(p^t || p(b_j)), each on its own stage's grid;
        imf_merged = T^2 KL(p^t || p(sum_j w_j b_j)) on the shallowest branch's grid, w_jc one learned weight for each
        branch and class (attentive logit), 1/J at the start.

    p^t is the teacher's final map, area-averaged to the grid. Both have weight lambda (0.1, the HLFD paper's for
    pixel-level terms). Deviations: the branches are dropped at inference, the student stays a plain U-Net; group
    normalization with one group instead of batch normalization, because nnU-Net's batches are small.
    """

    title: ClassVar = "IMF-style (paper: IFD)"
    summary: ClassVar = "branches on the student's middle stages learn from the teacher (the paper's IFD)"
    needs: ClassVar = frozenset({FINAL})
    source_loss: ClassVar = "focal_dice"

    def __init__(
        self, student_stages: Sequence[Stage], teacher_shape: TeacherShape, task: Task, settings: Settings
    ) -> None:
        super().__init__(student_stages, teacher_shape, task, settings)
        self.weights = {"imf_branches": settings.lambda_, "imf_merged": settings.lambda_}
        self.mids = student_taps(student_stages).mids
        self.branches = nn.ModuleDict({str(stage): self._branch(stage) for stage in self.mids})
        self.attentive = nn.Parameter(torch.full((len(self.mids), task.num_heads), 1 / len(self.mids)))

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return imf_branches and imf_merged, unweighted."""
        temperature = self.settings.temperature
        late = teacher.probabilities(0, temperature, self.task.regions)
        branches = [self.branches[str(stage)](at_least_float32(student.features[stage])) for stage in self.mids]
        grid = branches[0].shape[2:]
        ones = (1,) * self.task.dimension
        merged = torch.stack(
            [
                weights.view(1, -1, *ones) * resize(logits, grid)
                for weights, logits in zip(self.attentive, branches, strict=True)
            ]
        ).sum(dim=0)

        def divergence(logits: Tensor) -> Tensor:
            return self.divergence(logits, resize(late, logits.shape[2:]), target, temperature)

        return {
            "imf_branches": torch.stack([divergence(logits) for logits in branches]).mean(),
            "imf_merged": divergence(merged),
        }

    def roles(self) -> Roles:
        """Stages with branches."""
        return Roles(student=dict.fromkeys(self.mids, "branch"), teacher={}, notes=["IMF teaches by the final map"])

    def _branch(self, stage: int) -> nn.Module:
        channels = self.student_stages[stage].channels
        depthwise = {2: nn.Conv2d, 3: nn.Conv3d}[self.task.dimension]
        return nn.Sequential(
            depthwise(channels, channels, kernel_size=3, padding=1, groups=channels),
            self.projection(channels, channels),
            nn.GroupNorm(1, channels),
            nn.ReLU(),
            self.projection(channels, self.task.num_heads),
        )
