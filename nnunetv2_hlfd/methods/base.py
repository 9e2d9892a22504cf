"""What a distillation method is: named, unweighted loss terms of student and teacher outputs, and its adapters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from nnunetv2_hlfd.config import Settings
from nnunetv2_hlfd.taps import Stage, TeacherTaps


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the networks' outputs mean: their number, overlapping regions or labels, 2d or 3d, the ignore label."""

    num_heads: int
    regions: bool
    dimension: int
    ignore_label: int | None = None


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """One network on one batch: encoder maps and segmentation logits, both highest resolution first."""

    features: Sequence[Tensor]
    logits: Sequence[Tensor]


@dataclass(frozen=True, kw_only=True)
class TeacherOutputs(Outputs):
    """Outputs of a teacher together with the roles of its stages."""

    taps: TeacherTaps


class DistillationMethod(nn.Module):
    """Base of the methods. A subclass computes its terms and owns its adapters (student-side trainable parts).

    Adapters are registered as submodules: the trainer optimizes, synchronizes, clips and saves them. They are dropped
    when the student is deployed.

    Attributes:
        weights: term name -> its factor in the total loss. The trainer applies them, nothing else does.
    """

    weights: Mapping[str, float]

    def __init__(self, student_stages: Sequence[Stage], task: Task, settings: Settings) -> None:
        super().__init__()
        self.student_stages, self.task, self.settings = tuple(student_stages), task, settings

    def forward(self, student: Outputs, teachers: Sequence[TeacherOutputs], target: Tensor) -> dict[str, Tensor]:
        """Return every term of `weights` as an unweighted scalar.

        Args:
            student: with graph.
            teachers: without graph; several folds of one teacher are averaged.
            target: nnU-Net's full-resolution target.
        """
        raise NotImplementedError

    def describe(self) -> dict[str, object]:
        """Roles of the student's stages, for the tap table."""
        raise NotImplementedError
