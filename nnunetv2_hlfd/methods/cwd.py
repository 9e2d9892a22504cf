r"""CWD: channel-wise distillation of the final logits (Shu et al.; ICCV 2021; arXiv 2011.13256)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from nnunetv2_hlfd.distillation.method import LOGITS, DistillationMethod, Roles, Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs, mean_map
from nnunetv2_hlfd.distillation.taps import Stage
from nnunetv2_hlfd.losses.resize import at_least_float32
from nnunetv2_hlfd.settings.settings import Settings


class CWD(DistillationMethod):
    r"""cwd = T^2 / C sum_c KL(phi(y_c^t) || phi(y_c^s)), phi the softmax of one channel over all voxels; batch mean.

    The same for labels and regions, since no channel is compared with another. Weight 3 and T = 4 as in the source's
    code for logits. Several teacher networks: the mean of their distributions. With distill_ignored=False voxels to
    ignore leave the softmax.
    """

    title: ClassVar = "CWD"
    summary: ClassVar = (
        "channel-wise distillation: the student learns where in the image the teacher's logits of each class are high"
    )
    needs: ClassVar = frozenset({LOGITS})
    source_loss: ClassVar = "cross_entropy"

    def __init__(
        self, student_stages: Sequence[Stage], teacher_shape: TeacherShape, task: Task, settings: Settings
    ) -> None:
        super().__init__(student_stages, teacher_shape, task, settings)
        self.weights = {"cwd": 3.0}

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return cwd, unweighted."""
        temperature = self.settings.temperature
        valid = self.valid(target, tuple(student.logits[0].shape[2:]))
        scaled = spatial_logits(student.logits[0], temperature, valid)
        targets = [spatial_logits(network.logits[0], temperature, valid).softmax(2) for network in teacher.networks]
        mean = mean_map(targets)
        divergence = (torch.xlogy(mean, mean) - mean * scaled.log_softmax(dim=2)).sum(dim=2)
        return {"cwd": temperature**2 * divergence.mean()}

    def roles(self) -> Roles:
        """No encoder stage plays a role."""
        return Roles(student={}, teacher={}, notes=["CWD teaches the final map only"])


def spatial_logits(logits: Tensor, temperature: float, valid: Tensor | None) -> Tensor:
    """Logits / T as (B, C, voxels) for a softmax over the voxels; invalid ones get probability 0.

    Args:
        logits: (B, C, *spatial).
        temperature: T > 0.
        valid: (B, 1, *spatial), boolean, or None for all. Where none is valid the softmax is uniform, without gradient.
    """
    scaled = at_least_float32(logits) / temperature
    if valid is not None:
        scaled = torch.where(valid, scaled, torch.finfo(scaled.dtype).min)
    return scaled.flatten(start_dim=2)
