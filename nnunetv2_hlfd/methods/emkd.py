r"""EMKD: efficient medical image segmentation by knowledge distillation (Qin et al.; TMI 2021; arXiv 2108.09987).

The HLFD paper compares with it as "DKD".
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from nnunetv2_hlfd.distillation.method import ATTENTION, FEATURES, FINAL, DistillationMethod, Roles, Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs, mean_map
from nnunetv2_hlfd.distillation.requests import MapRequest, attention_request
from nnunetv2_hlfd.distillation.taps import Stage, student_taps
from nnunetv2_hlfd.losses.affinity import class_vectors, cosine_affinity
from nnunetv2_hlfd.losses.divergence import masked_mean
from nnunetv2_hlfd.losses.focal_dice import ignored_voxels
from nnunetv2_hlfd.losses.resize import at_least_float32, resize
from nnunetv2_hlfd.settings.settings import Settings


class EMKD(DistillationMethod):
    r"""Prediction maps and importance maps.

    emkd_prediction = T^2 KL(p^t || p^s) of the final maps, mean over voxels; weight lambda (0.1, the source's);
    emkd_importance = sum over a low and a high stage of || A(z^s) - A(z^t) ||^2; weight beta (0.9, the source's).

    Low is the student's first strided stage with the teacher's nearest in stride, high the teacher's late stage with
    the student's nearest. A(z) as in HLFD: normalized channel mean of |z|^p, p the setting attention_exponent (the
    source prints p = 1, its code has 4), the student resized to the teacher's grid.
    """

    title: ClassVar = "EMKD (paper: DKD)"
    summary: ClassVar = "the student learns the teacher's prediction maps and importance maps (the paper's DKD)"
    needs: ClassVar = frozenset({FINAL, ATTENTION})
    source_loss: ClassVar = "focal_dice"

    def __init__(
        self, student_stages: Sequence[Stage], teacher_shape: TeacherShape, task: Task, settings: Settings
    ) -> None:
        super().__init__(student_stages, teacher_shape, task, settings)
        self.weights = {"emkd_prediction": settings.lambda_, "emkd_importance": settings.beta}
        low, late = student_taps(student_stages).early, self.teacher_taps.late
        pairs = (low, self.teacher_partner(low)), (self.student_partner(late), late)
        self.pairs = tuple(dict.fromkeys(pairs))  # with few stages low and high can be the same

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return emkd_prediction and emkd_importance, unweighted."""
        distances = [self.attention_distance(student, teacher, *pair) for pair in self.pairs]
        return {
            "emkd_prediction": self.final_divergence(student, teacher, target, self.settings.temperature),
            "emkd_importance": torch.stack(distances).sum(),
        }

    def requests(self) -> list[MapRequest]:
        """The teacher's attention maps."""
        return [attention_request((stage,), self.settings.attention_exponent) for _, stage in self.pairs]

    def roles(self) -> Roles:
        """Low and high stages."""
        names = ("low", "high") if len(self.pairs) == 2 else ("low, high",)
        return Roles(
            student={student: name for (student, _), name in zip(self.pairs, names, strict=True)},
            teacher={teacher: name for (_, teacher), name in zip(self.pairs, names, strict=True)},
        )


class EMKDRegion(EMKD):
    r"""EMKD with its third part, region affinity.

    emkd_region = sum over the stages low and high of (v_ij^s - v_ij^t)^2, v_ij = cos(R_i, R_j), R_i the mean feature of
    class i in a patch; mean over patches and pairs of classes that are present; weight beta (0.9, the source's).

    Classes are the labels with the background, or the regions with what lies in none of them; voxels to ignore belong
    to no class. Deviations: a cell of a stage's grid belongs to classes by their share of it (nearest resizing, the
    source's, loses small lesions); more than two classes as pairs.
    """

    title: ClassVar = "EMKD with region affinity"
    summary: ClassVar = "EMKD, and the similarity between the features of the classes' regions"
    needs: ClassVar = frozenset({FINAL, ATTENTION, FEATURES})

    def __init__(
        self, student_stages: Sequence[Stage], teacher_shape: TeacherShape, task: Task, settings: Settings
    ) -> None:
        super().__init__(student_stages, teacher_shape, task, settings)
        self.weights = {**self.weights, "emkd_region": settings.beta}

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return emkd_prediction, emkd_importance and emkd_region, unweighted."""
        membership = class_membership(target, self.task)
        present = membership.flatten(start_dim=2).any(dim=2)
        pairs = (present.unsqueeze(1) & present.unsqueeze(2)).triu(diagonal=1)
        terms = []
        for student_stage, teacher_stage in self.pairs:
            affinities = [_region_affinity(network.features[teacher_stage], membership) for network in teacher.networks]
            difference = _region_affinity(student.features[student_stage], membership) - mean_map(affinities)
            terms.append(masked_mean(difference.square(), pairs))
        return {**super().forward(student, teacher, target), "emkd_region": torch.stack(terms).sum()}


def class_membership(target: Tensor, task: Task) -> Tensor:
    """Which classes a voxel belongs to: (B, K, *spatial), floating; none where it is to be ignored.

    Args:
        target: nnU-Net's full-resolution target.
        task: its meaning. K is the number of labels, or of regions plus one for what lies in none.
    """
    if task.regions:
        regions = target[:, : task.num_heads].bool()
        members = torch.cat([~regions.any(dim=1, keepdim=True), regions], dim=1)
    else:
        labels = torch.arange(task.num_heads, device=target.device).view(1, -1, *(1,) * task.dimension)
        members = target.long() == labels
    ignored = ignored_voxels(target, task.ignore_label, task.regions)
    return (members if ignored is None else members & ~ignored).float()


def _region_affinity(features: Tensor, membership: Tensor) -> Tensor:
    """Cosine of the mean features of every pair of classes, (B, K, K)."""
    features = at_least_float32(features)
    shares = resize(membership.to(features.dtype), features.shape[2:])
    return cosine_affinity(class_vectors(features, shares))
