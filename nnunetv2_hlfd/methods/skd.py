r"""SKD: structured knowledge distillation (Liu et al.; CVPR 2019; arXiv 1903.04197)."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from nnunetv2_hlfd.distillation.method import FEATURES, FINAL, DistillationMethod, Roles, Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs, mean_map
from nnunetv2_hlfd.distillation.taps import Stage
from nnunetv2_hlfd.losses.affinity import cosine_affinity
from nnunetv2_hlfd.losses.resize import at_least_float32
from nnunetv2_hlfd.settings.settings import Settings

_NODES_PER_AXIS = 8
_SOURCE_BATCH = 8  # images


class SKD(DistillationMethod):
    r"""Pixel-wise and pair-wise terms of SKD.

    skd_pixel = KL(p^t || p^s) of the final maps at temperature 1, mean over voxels;
    skd_pair = 1/N^2 sum_ij (a_ij^s - a_ij^t)^2, a_ij the cosine of the features of nodes i and j, batch mean.

    Nodes are max-pooled cells of the teacher's late stage and of the student's stage nearest to it in stride, at most
    8 on each axis, the same for both. Weights 10 and 1 as in the source's code. Its pixel term is summed over the 8
    images of its batch, its cross entropy is their mean: in the source's ratio (the setting source_ratio), the weight
    of the mean is 80. Deviations: the holistic (adversarial) term is left out, a discriminator beside nnU-Net's loop is
    another training; the source's pixel term is the cross entropy, which differs by a constant; its default graph has
    2 x 2 nodes; here the cosine's gradient includes the norm's. Several teacher networks: mean of their probabilities
    and affinities.
    """

    title: ClassVar = "SKD"
    summary: ClassVar = (
        "structured distillation: the final map, and the similarity between the features of pairs of positions"
    )
    needs: ClassVar = frozenset({FINAL, FEATURES})
    source_loss: ClassVar = "cross_entropy"

    def __init__(
        self, student_stages: Sequence[Stage], teacher_shape: TeacherShape, task: Task, settings: Settings
    ) -> None:
        super().__init__(student_stages, teacher_shape, task, settings)
        images = _SOURCE_BATCH if settings.source_ratio else 1
        self.weights = {"skd_pixel": 10.0 * images, "skd_pair": 1.0}
        self.late = self.teacher_taps.late
        self.partner = self.student_partner(self.late)

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return skd_pixel and skd_pair, unweighted."""
        features = student.features[self.partner]
        grid = [
            min(_NODES_PER_AXIS, *extents) for extents in zip(features.shape[2:], teacher.size(self.late), strict=True)
        ]
        affinities = [node_affinity(network.features[self.late], grid) for network in teacher.networks]
        return {
            "skd_pixel": self.final_divergence(student, teacher, target, temperature=1.0),
            "skd_pair": functional.mse_loss(node_affinity(features, grid), mean_map(affinities)),
        }

    def roles(self) -> Roles:
        """The stages whose nodes are compared."""
        return Roles(student={self.partner: "pairs"}, teacher={self.late: "pairs"})


def node_affinity(features: Tensor, grid: Sequence[int]) -> Tensor:
    """Cosine of every pair of max-pooled cells.

    Args:
        features: (B, C, *spatial).
        grid: number of cells on each axis, N in all.

    Returns:
        (B, N, N).
    """
    pool = functional.adaptive_max_pool2d if len(grid) == 2 else functional.adaptive_max_pool3d
    nodes = pool(at_least_float32(features), tuple(grid))
    return cosine_affinity(nodes.flatten(start_dim=2).transpose(1, 2))
