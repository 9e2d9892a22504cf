"""Which maps: of which teacher, and how it predicted them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from nnunetv2_hlfd.networks.size import Size
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
    format: str = FORMAT
    code_limit: float = CODE_LIMIT

    @property
    def hashes(self) -> list[str]:
        """SHA-256 of the checkpoints."""
        return [origin["sha256"] for origin in self.networks]

    @property
    def key(self) -> str:
        """12 hexadecimal digits that differ where maps do."""
        identity = (self.teacher_maps, self.hashes, self.step_size, self.mirroring, self.format, self.code_limit)
        return hash_json(identity)[:12]

    def size(self, patch_size: Sequence[int]) -> Size:
        """Size of one network; its operations go with the voxels of the patch."""
        return Size(parameters=self.parameters, macs=self.macs * prod(patch_size) // prod(self.patch_size))
