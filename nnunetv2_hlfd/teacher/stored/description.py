"""Which maps: of which teacher, and how it predicted them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from nnunetv2_hlfd.distillation.method import TeacherShape
from nnunetv2_hlfd.distillation.requests import MapRequest
from nnunetv2_hlfd.distillation.taps import Stage, teacher_taps
from nnunetv2_hlfd.networks.size import Size
from nnunetv2_hlfd.teacher.stored.coarse import spatial_stride
from nnunetv2_hlfd.teacher.stored.encoding import CODE_LIMIT, FORMAT
from nnunetv2_hlfd.teacher.stored.fingerprint import hash_json


@dataclass(frozen=True, kw_only=True)
class Description:
    """What all maps of a folder have in common.

    Attributes:
        teacher_maps: the setting; stored: the mean over the networks, crossfit: over those that held the case out.
        step_size: of the sliding window, in patches.
        mirroring: whether the teacher was averaged over mirrored copies.
        channels: of the maps.
        regions: nnU-Net's region-based training.
        networks: their origins, for the record.
        parameters: of one network.
        macs: of one network on a patch of `patch_size`.
        patch_size: see `macs`.
        requests: the coarse maps beside the final ones, `MapRequest`s as dictionaries.
        stages: of the networks, where there are coarse maps; `Stage`s as dictionaries.
        heads: trained intermediate outputs of the networks, likewise.
        format: of the codes.
        code_limit: of the codes.
    """

    teacher_maps: str
    step_size: float
    mirroring: bool
    channels: int
    regions: bool
    networks: Sequence[Mapping[str, Any]]
    parameters: int
    macs: int
    patch_size: Sequence[int]
    requests: Sequence[Mapping[str, Any]] = field(default_factory=list)
    stages: Sequence[Mapping[str, Any]] = field(default_factory=list)
    heads: Sequence[int] = field(default_factory=list)
    format: str = FORMAT
    code_limit: float = CODE_LIMIT

    @property
    def hashes(self) -> list[str]:
        """SHA-256 of the checkpoints."""
        return [origin["sha256"] for origin in self.networks]

    @property
    def key(self) -> str:
        """12 hexadecimal digits that differ where maps do."""
        identity = [self.teacher_maps, self.hashes, self.step_size, self.mirroring, self.format, self.code_limit]
        return hash_json([*identity, self.requests] if self.requests else identity)[:12]

    @property
    def coarse(self) -> list[MapRequest]:
        """What the coarse maps are."""
        return [MapRequest.from_dict(request) for request in self.requests]

    @property
    def strides(self) -> list[tuple[int, ...]]:
        """Of the coarse maps' grids on the axes of an image."""
        return [spatial_stride(request, self.teacher_stages) for request in self.coarse]

    @property
    def teacher_stages(self) -> tuple[Stage, ...]:
        """Of the networks; empty where there are no coarse maps."""
        return tuple(Stage(channels=stage["channels"], stride=tuple(stage["stride"])) for stage in self.stages)

    @property
    def all_channels(self) -> list[int]:
        """Number of channels of the final map and of each coarse one."""
        return [self.channels, *(request.channels(self.channels) for request in self.coarse)]

    def shape(self, late_max_stride: int | None) -> TeacherShape:
        """Stages of the networks, with their roles; without stages where there are no coarse maps."""
        if not self.stages:
            return TeacherShape()
        stages = self.teacher_stages
        return TeacherShape(stages=stages, taps=teacher_taps(stages, self.heads, late_max_stride))

    def size(self, patch_size: Sequence[int]) -> Size:
        """Size of one network; its operations go with the voxels of the patch."""
        return Size(parameters=self.parameters, macs=self.macs * prod(patch_size) // prod(self.patch_size))
