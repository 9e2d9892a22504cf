r"""HLFD: hierarchical layer-selective feedback distillation (Gorade, Mittal, Jha, Bagci; ISBI 2024; arXiv 2311.16700).

Total loss (Eq. 5): L_seg + beta (UFD + IFD) + lambda (UPD + IPD). Middle layers of the teacher teach early layers of
the student, its last layer teaches the student's middle layers, by attention maps (feature level) and by
segmentation maps (pixel level). Where this differs from the paper and why: docs/reference/paper_to_code.md.
"""

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from nnunetv2_hlfd.distillation.method import (
    ATTENTION,
    FINAL,
    HEADS,
    DistillationMethod,
    PixelMap,
    Roles,
    Task,
    TeacherShape,
)
from nnunetv2_hlfd.distillation.outputs import Outputs, Source, TeacherOutputs
from nnunetv2_hlfd.distillation.requests import MapRequest, attention_request, heads_request
from nnunetv2_hlfd.distillation.taps import Stage, student_taps
from nnunetv2_hlfd.losses.attention import (
    attention_distance,
)
from nnunetv2_hlfd.losses.resize import at_least_float32, resize
from nnunetv2_hlfd.methods.soft_label import soft_label_loss
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.utilities.errors import UserError


class HLFD(DistillationMethod):
    r"""The four terms of HLFD.

    Feature level, A(z) the attention map, student resized to the teacher's grid:
        ufd (Eq. 1) = || A(z_early^s) - A(z_mid^t) ||^2, z_mid^t the teacher's middle stages as one map;
        ifd (Eq. 2) = sum_j || A(z_midj^s) - A(z_late^t) ||^2.
    z^t are the maps of the teacher's encoder, or with `teacher_features="decoder"` those of its decoder on the same
    grids; the bottleneck is the encoder's in both.
    Pixel level, KL(teacher || student) at temperature T, times T^2:
        upd (Eq. 3) = KL to p_mid^t, the mean over the teacher's trained intermediate outputs, on its grid;
        ipd (Eq. 4) = 1/N sum_j KL to p_late^t, the teacher's final map.

    The student's pixel maps are learned 1x1 heads on its encoder stages (`pixel_maps="encoder"`, the paper's
    "interpolated representation"), its own intermediate deep-supervision outputs ("decoder"), or all its outputs, the
    final map included ("outputs"). In decoder order, early is the deepest map, the shallower ones are the mids. With
    `pixel_loss="soft"` the soft-label segmentation loss at temperature 1 takes the place of the KL divergence.

    Raises:
        UserError: for a student without usable stages (or, for "decoder", intermediate outputs).
    """

    title: ClassVar = "HLFD"
    summary: ClassVar = "hierarchical layer-selective feedback distillation, by attention maps and class probabilities"
    needs: ClassVar = frozenset({FINAL, HEADS, ATTENTION})

    def __init__(
        self, student_stages: Sequence[Stage], teacher_shape: TeacherShape, task: Task, settings: Settings
    ) -> None:
        super().__init__(student_stages, teacher_shape, task, settings)
        self.weights = {"ufd": settings.beta, "ifd": settings.beta, "upd": settings.lambda_, "ipd": settings.lambda_}
        self.taps = student_taps(student_stages)
        soft = settings.pixel_loss == "soft"
        self.temperature = 1.0 if soft else settings.temperature
        self.soft_loss = soft_label_loss(settings, task) if soft else None
        self.heads = nn.ModuleDict()
        if settings.pixel_maps != "encoder":
            if len(student_stages) < 4:
                raise UserError(
                    f"Expected a student with at least 4 stages for pixel_maps={settings.pixel_maps} (its "
                    f"intermediate outputs are taught), got {len(student_stages)}. Use pixel_maps=encoder."
                )
            return
        for stage in (self.taps.early, *self.taps.mids):
            self.heads[str(stage)] = self.head(stage)

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return ufd, ifd, upd and ipd, unweighted."""
        upd, ipd = self._upd(student, teacher, target), self._ipd(student, teacher, target)
        return {**self._feature_terms(student, teacher), "upd": upd, "ipd": ipd}

    def requests(self) -> list[MapRequest]:
        """The attention maps of the middle stages and the late one, and p_mid."""
        taps, source = self.teacher_taps, cast(Source, self.settings.teacher_features)
        attention = [
            attention_request(stages, self.settings.attention_exponent, source) for stages in (taps.mids, (taps.late,))
        ]
        return [*attention, *([heads_request(taps.heads, self.temperature)] if taps.heads else [])]

    def roles(self) -> Roles:
        """Early, middle and late stages, and the teacher's outputs that make p_mid."""
        taps = self.teacher_taps
        heads = ", ".join(map(str, taps.heads)) or "none, the final map instead"
        notes = [f"teacher's intermediate outputs for p_mid (0 is full resolution): {heads}"]
        if self.settings.teacher_features == "decoder":
            notes.append("teacher's attention maps: of its decoder, on the grids of these stages")
        return Roles(
            student={self.taps.early: "early", **dict.fromkeys(self.taps.mids, "mid")},
            teacher={**dict.fromkeys(taps.mids, "mid"), taps.late: "late"},
            notes=notes,
        )

    def pixel_maps(self, features: Sequence[Tensor]) -> list[PixelMap]:
        """The learned heads' logits on their stages; `upd` trains the deepest head, `ipd` the others."""
        deepest = max(map(int, self.heads), default=None)
        return [
            PixelMap(stage=stage, term="upd" if stage == deepest else "ipd", logits=self._head_logits(stage, features))
            for stage in map(int, self.heads)
        ]

    def _feature_terms(self, student: Outputs, teacher: TeacherOutputs) -> dict[str, Tensor]:
        exponent, taps = self.settings.attention_exponent, self.teacher_taps
        source = cast(Source, self.settings.teacher_features)
        teacher_mid = teacher.unified_attention(taps.mids, exponent, source)
        early = student.attention(self.taps.early, teacher.unified_size(taps.mids), exponent)
        ifd = [self.attention_distance(student, teacher, stage, taps.late, source) for stage in self.taps.mids]
        return {"ufd": attention_distance(early, teacher_mid), "ifd": torch.stack(ifd).sum()}

    def _upd(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> Tensor:
        mid = self._teacher_mid(teacher, target)
        early_logits = self._student_maps(student)[0]
        return self._pixel_distance(resize(at_least_float32(early_logits), mid.shape[2:]), mid, target)

    def _ipd(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> Tensor:
        late = self._teacher_late(teacher, target)
        mid_logits = self._student_maps(student)[1:]
        if self.settings.pixel_grid == "image":
            mid_logits = [resize(at_least_float32(logits), late.shape[2:]) for logits in mid_logits]
        distances = [self._pixel_distance(logits, resize(late, logits.shape[2:]), target) for logits in mid_logits]
        return torch.stack(distances).mean()

    def _pixel_distance(self, logits: Tensor, probabilities: Tensor, target: Tensor) -> Tensor:
        if self.soft_loss is None:
            return self.divergence(logits, probabilities, target, self.temperature)
        return self.soft_loss(logits, probabilities, self.valid(target, tuple(logits.shape[2:])))

    def _teacher_mid(self, teacher: TeacherOutputs, _target: Tensor) -> Tensor:
        """p_mid^t, (B, C, *spatial); the final map where no intermediate output is trained."""
        return teacher.unified_probabilities(self.teacher_taps.heads or (0,), self.temperature, self.task.regions)

    def _teacher_late(self, teacher: TeacherOutputs, _target: Tensor) -> Tensor:
        """p_late^t, (B, C, *spatial)."""
        return teacher.probabilities(0, self.temperature, self.task.regions)

    def _student_maps(self, student: Outputs) -> list[Tensor]:
        """Pixel logits in decoder order: deepest first."""
        if self.settings.pixel_maps != "encoder":
            first = 1 if self.settings.pixel_maps == "decoder" else 0
            return list(student.logits[first:])[::-1]
        stages = (self.taps.early, *self.taps.mids)[::-1]
        return [self._head_logits(stage, student.features) for stage in stages]

    def _head_logits(self, stage: int, features: Sequence[Tensor]) -> Tensor:
        return self.heads[str(stage)](at_least_float32(features[stage]))


class HLFDNoFeature(HLFD):
    """HLFD without its feature-level half (beta 0); its terms are still computed and logged."""

    summary: ClassVar = "HLFD without its feature-level half (beta 0)"
    defaults: ClassVar = {"beta": 0.0}


class HLFDNoPixel(HLFD):
    """HLFD without its pixel-level half (lambda 0); its terms are still computed and logged."""

    summary: ClassVar = "HLFD without its pixel-level half (lambda 0)"
    defaults: ClassVar = {"lambda": 0.0}
