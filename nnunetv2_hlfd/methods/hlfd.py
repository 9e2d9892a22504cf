r"""HLFD: hierarchical layer-selective feedback distillation (Gorade, Mittal, Jha, Bagci; ISBI 2024; arXiv 2311.16700).

Total loss (Eq. 5): L_seg + beta (UFD + IFD) + lambda (UPD + IPD). Middle layers of the teacher teach early layers of
the student, its last layer teaches the student's middle layers, by attention maps (feature level) and by
segmentation maps (pixel level). Where this differs from the paper and why: docs/reference/paper_to_code.md.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from nnunetv2_hlfd.config import Settings
from nnunetv2_hlfd.losses.attention import (
    attention_distance,
    attention_map,
    energy,
    mean_attention,
    smallest_size,
    unified_energy,
)
from nnunetv2_hlfd.losses.divergence import kl_divergence, probabilities, valid_cells
from nnunetv2_hlfd.losses.focal_dice import ignored_voxels
from nnunetv2_hlfd.losses.resize import at_least_float32, resize
from nnunetv2_hlfd.methods.base import DistillationMethod, Outputs, Task, TeacherOutputs
from nnunetv2_hlfd.taps import Stage, student_taps
from nnunetv2_hlfd.trainer import DistillationTrainer


class HLFD(DistillationMethod):
    r"""The four terms of HLFD.

    Feature level, A(z) the attention map, student resized to the teacher's grid:
        ufd (Eq. 1) = || A(z_early^s) - A(z_mid^t) ||^2, z_mid^t the teacher's middle stages as one map;
        ifd (Eq. 2) = sum_j || A(z_midj^s) - A(z_late^t) ||^2.
    Pixel level, KL(teacher || student) at temperature T, times T^2:
        upd (Eq. 3) = KL to p_mid^t, the mean over the teacher's trained intermediate outputs, on its grid;
        ipd (Eq. 4) = 1/N sum_j KL to p_late^t, the teacher's final map.

    The student's pixel maps are learned 1x1 heads on its encoder stages (`pixel_maps="encoder"`, the paper's
    "interpolated representation") or its own deep-supervision outputs ("decoder"). In decoder order, early is the
    deepest map, the shallower ones are the mids.

    Raises:
        ValueError: for a student without usable stages (or, for "decoder", intermediate outputs).
    """

    def __init__(self, student_stages: Sequence[Stage], task: Task, settings: Settings) -> None:
        super().__init__(student_stages, task, settings)
        self.weights = {
            "ufd": settings.beta, "ifd": settings.beta, "upd": settings.lambda_, "ipd": settings.lambda_
        }  # fmt: skip
        self.taps = student_taps(student_stages)
        self.heads = nn.ModuleDict()
        if settings.pixel_maps == "decoder":
            if len(student_stages) < 4:
                raise ValueError(
                    f"Expected a student with at least 4 stages for pixel_maps=decoder (its intermediate outputs are "
                    f"taught), got {len(student_stages)}. Use pixel_maps=encoder."
                )
            return
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[task.dimension]
        for stage in (self.taps.early, *self.taps.mids):
            self.heads[str(stage)] = convolution(student_stages[stage].channels, task.num_heads, kernel_size=1)

    def forward(self, student: Outputs, teachers: Sequence[TeacherOutputs], target: Tensor) -> dict[str, Tensor]:
        """Return ufd, ifd, upd and ipd, unweighted."""
        return {**self._feature_terms(student, teachers), **self._pixel_terms(student, teachers, target)}

    def describe(self) -> dict[str, object]:
        """Roles of the student's stages."""
        return {"early": self.taps.early, "mids": list(self.taps.mids), "pixel maps": self.settings.pixel_maps}

    def _feature_terms(self, student: Outputs, teachers: Sequence[TeacherOutputs]) -> dict[str, Tensor]:
        exponent = self.settings.attention_exponent
        mid_energies = [unified_energy([each.features[i] for i in each.taps.mids], exponent) for each in teachers]
        late_features = [each.features[each.taps.late] for each in teachers]
        late_energies = [energy(late, late.shape[2:], exponent) for late in late_features]
        teacher_mid = mean_attention([attention_map(each) for each in mid_energies])
        teacher_late = mean_attention([attention_map(each) for each in late_energies])

        def student_map(stage: int, size: Sequence[int]) -> Tensor:
            return attention_map(energy(student.features[stage], size, exponent))

        ufd = attention_distance(student_map(self.taps.early, mid_energies[0].shape[1:]), teacher_mid)
        ifd = torch.stack(
            [attention_distance(student_map(i, late_energies[0].shape[1:]), teacher_late) for i in self.taps.mids]
        ).sum()
        return {"ufd": ufd, "ifd": ifd}

    def _pixel_terms(self, student: Outputs, teachers: Sequence[TeacherOutputs], target: Tensor) -> dict[str, Tensor]:
        late = _mean([self._probabilities(each.logits[0]) for each in teachers])
        mid = _mean([self._unified_probabilities(each) for each in teachers])
        early_logits, *mid_logits = self._student_maps(student)
        upd = self._divergence(resize(at_least_float32(early_logits), mid.shape[2:]), mid, target)
        if self.settings.pixel_grid == "image":
            mid_logits = [resize(at_least_float32(each), late.shape[2:]) for each in mid_logits]
        ipd = torch.stack([self._divergence(each, resize(late, each.shape[2:]), target) for each in mid_logits]).mean()
        return {"upd": upd, "ipd": ipd}

    def _student_maps(self, student: Outputs) -> list[Tensor]:
        """Pixel logits in decoder order: deepest first."""
        if self.settings.pixel_maps == "decoder":
            return list(student.logits[1:])[::-1]
        stages = (self.taps.early, *self.taps.mids)[::-1]
        return [self.heads[str(stage)](at_least_float32(student.features[stage])) for stage in stages]

    def _unified_probabilities(self, teacher: TeacherOutputs) -> Tensor:
        """p_mid^t: mean over trained intermediate outputs on the smallest grid; none left: the final map."""
        maps = [self._probabilities(teacher.logits[head]) for head in teacher.taps.heads or (0,)]
        return _mean([resize(each, smallest_size(maps)) for each in maps])

    def _probabilities(self, logits: Tensor) -> Tensor:
        return probabilities(logits, self.settings.temperature, self.task.regions)

    def _divergence(self, student_logits: Tensor, teacher_probabilities: Tensor, target: Tensor) -> Tensor:
        ignored = ignored_voxels(target, self.task.ignore_label, self.task.regions)
        masked = ignored is not None and not self.settings.distill_ignored
        return kl_divergence(
            student_logits,
            teacher_probabilities,
            temperature=self.settings.temperature,
            regions=self.task.regions,
            valid=valid_cells(ignored, tuple(student_logits.shape[2:])) if masked else None,  # type: ignore[arg-type]
        )


class nnUNetTrainerHLFD(DistillationTrainer):
    """Student distilled by HLFD."""

    method_class = HLFD


class nnUNetTrainerHLFD_noFeature(nnUNetTrainerHLFD):
    """HLFD without its feature-level half (beta 0); its terms are still computed and logged."""

    defaults: ClassVar = {"beta": 0.0}


class nnUNetTrainerHLFD_noPixel(nnUNetTrainerHLFD):
    """HLFD without its pixel-level half (lambda 0); its terms are still computed and logged."""

    defaults: ClassVar = {"lambda": 0.0}


def _mean(maps: Sequence[Tensor]) -> Tensor:
    return maps[0] if len(maps) == 1 else torch.stack(list(maps)).mean(dim=0)
