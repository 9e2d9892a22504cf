"""What a distillation method is: named, unweighted loss terms of student and teacher outputs, and its adapters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from nnunetv2_hlfd.distillation.taps import Stage, TeacherTaps, nearest_stage
from nnunetv2_hlfd.losses.attention import attention_distance, attention_map, energy, mean_attention
from nnunetv2_hlfd.losses.divergence import kl_divergence, probabilities, valid_cells
from nnunetv2_hlfd.losses.focal_dice import ignored_voxels
from nnunetv2_hlfd.settings.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the networks' outputs mean: their number, overlapping regions or labels, 2d or 3d, the ignore label."""

    num_heads: int
    regions: bool
    dimension: int
    ignore_label: int | None = None


@dataclass(frozen=True, kw_only=True)
class TeacherShape:
    """What adapters are built from: the teacher's stages, their roles, and how many networks teach together."""

    stages: tuple[Stage, ...]
    taps: TeacherTaps
    networks: int = 1


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """One network on one batch: encoder maps and segmentation logits, both highest resolution first.

    Maps that several terms or methods need are computed once a step.
    """

    features: Sequence[Tensor]
    logits: Sequence[Tensor]
    _computed: dict[tuple[object, ...], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, key: tuple[object, ...], compute: Callable[[], Tensor]) -> Tensor:
        """Return what `compute` returned when this key was asked for first."""
        if key not in self._computed:
            self._computed[key] = compute()
        return self._computed[key]

    def attention(self, stage: int, size: Sequence[int], exponent: float) -> Tensor:
        """Attention map (B, voxels) of a stage resized to `size`."""
        return self.once(
            ("attention", stage, tuple(size), exponent),
            lambda: attention_map(energy(self.features[stage], size, exponent)),
        )

    def probabilities(self, head: int, temperature: float, regions: bool) -> Tensor:
        """Probabilities (B, C, *spatial) of an output at a temperature."""
        return self.once(
            ("probabilities", head, temperature, regions),
            lambda: probabilities(self.logits[head], temperature, regions),
        )


@dataclass(frozen=True, kw_only=True)
class TeacherOutputs:
    """The teacher on one batch, without graph: one network, or several folds whose maps are averaged."""

    networks: Sequence[Outputs]
    taps: TeacherTaps

    def attention(self, stage: int, exponent: float) -> Tensor:
        """Attention map (B, voxels) of a stage on its own grid."""
        return self.networks[0].once(
            ("mean attention", stage, exponent),
            lambda: mean_attention([each.attention(stage, self.size(stage), exponent) for each in self.networks]),
        )

    def probabilities(self, temperature: float, regions: bool) -> Tensor:
        """Probabilities (B, C, *spatial) of the final map at a temperature."""
        return self.networks[0].once(
            ("mean probabilities", temperature, regions),
            lambda: mean_map([each.probabilities(0, temperature, regions) for each in self.networks]),
        )

    def size(self, stage: int) -> tuple[int, ...]:
        """Grid of a stage's map."""
        return tuple(self.networks[0].features[stage].shape[2:])


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Which stages a method uses and as what, for the tap table, and what else is to be said."""

    student: Mapping[int, str]
    teacher: Mapping[int, str]
    notes: Sequence[str] = ()


class DistillationMethod(nn.Module):
    """Base of the methods. A subclass computes its terms and owns its adapters (student-side trainable parts).

    Adapters are registered as submodules: the trainer optimizes, synchronizes, clips and saves them. They are dropped
    when the student is deployed.

    Attributes:
        title: for reports, with the name that the HLFD paper uses.
        weights: term name -> its factor in the total loss. The trainer applies them, nothing else does. Names are
            unique over all methods, because methods can be combined.
    """

    title: ClassVar[str]
    weights: Mapping[str, float]

    def __init__(self, student_stages: Sequence[Stage], teacher: TeacherShape, task: Task, settings: Settings) -> None:
        super().__init__()
        self.student_stages, self.teacher, self.task, self.settings = tuple(student_stages), teacher, task, settings

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return every term of `weights` as an unweighted scalar.

        Args:
            student: with graph.
            teacher: without graph.
            target: nnU-Net's full-resolution target.
        """
        raise NotImplementedError

    def roles(self) -> Roles:
        """Roles of the stages, for the tap table."""
        raise NotImplementedError

    def head(self, stage: int) -> nn.Module:
        """A learned 1x1 head from a student stage to segmentation logits."""
        return self.projection(self.student_stages[stage].channels, self.task.num_heads)

    def projection(self, in_channels: int, out_channels: int) -> nn.Module:
        """A learned 1x1 convolution of this task's dimension."""
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[self.task.dimension]
        return convolution(in_channels, out_channels, kernel_size=1)

    def student_partner(self, teacher_stage: int) -> int:
        """The student's stage whose total stride is nearest to that of a teacher's stage."""
        return nearest_stage(self.student_stages, self.teacher.stages[teacher_stage].stride)

    def teacher_partner(self, student_stage: int) -> int:
        """The teacher's stage whose total stride is nearest to that of a student's stage."""
        return nearest_stage(self.teacher.stages, self.student_stages[student_stage].stride)

    def attention_distance(
        self, student: Outputs, teacher: TeacherOutputs, student_stage: int, teacher_stage: int
    ) -> Tensor:
        """|| A(z^s) - A(z^t) ||^2 of two stages, the student's resized to the teacher's grid, mean over the batch."""
        exponent = self.settings.attention_exponent
        student_map = student.attention(student_stage, teacher.size(teacher_stage), exponent)
        return attention_distance(student_map, teacher.attention(teacher_stage, exponent))

    def divergence(
        self, student_logits: Tensor, teacher_probabilities: Tensor, target: Tensor, temperature: float
    ) -> Tensor:
        """T^2 KL(teacher || student) on the grid of the logits; voxels to ignore count unless distill_ignored."""
        return kl_divergence(
            student_logits,
            teacher_probabilities,
            temperature=temperature,
            regions=self.task.regions,
            valid=self.valid(target, tuple(student_logits.shape[2:])),
        )

    def final_divergence(self, student: Outputs, teacher: TeacherOutputs, target: Tensor, temperature: float) -> Tensor:
        """T^2 KL of the final maps, computed once a step for all methods that use it."""
        return student.once(
            ("final divergence", temperature),
            lambda: self.divergence(
                student.logits[0], teacher.probabilities(temperature, self.task.regions), target, temperature
            ),
        )

    def valid(self, target: Tensor, size: tuple[int, ...]) -> Tensor | None:
        """Cells (B, 1, *size) that pixel-level terms teach; None for all."""
        if self.settings.distill_ignored:
            return None
        ignored = ignored_voxels(target, self.task.ignore_label, self.task.regions)
        return None if ignored is None else valid_cells(ignored, size)


def mean_map(maps: Sequence[Tensor]) -> Tensor:
    """Mean of maps of the same shape, one for each teacher network."""
    return maps[0] if len(maps) == 1 else torch.stack(list(maps)).mean(dim=0)
