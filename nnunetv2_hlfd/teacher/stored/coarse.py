r"""Attention and intermediate outputs of a whole image, on the grid of the stages that they come from.

A cell of a grid of stride s holds the mean over its s voxels on each axis (fewer at the end of the image). Read again,
every voxel has its cell's value, so that cutting and warping are those of maps on voxels.

Of an energy M_p (`losses.attention.energy`) the root r = M_p^(1/p) is kept, which is of the size of the activations for
any p, as 8-bit codes 255 r / max r: attention maps are normalized, so that a factor for each image changes nothing.
Code 0 is no energy. Means of probabilities are kept as final maps are (`encoding`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nnunetv2_hlfd.distillation.requests import MapRequest
from nnunetv2_hlfd.losses.attention import attention_map
from nnunetv2_hlfd.losses.divergence import probabilities
from nnunetv2_hlfd.losses.resize import resize
from nnunetv2_hlfd.teacher.stored.encoding import decode, encode

_LARGEST = 255  # of a code
_SMALLEST = 1e-11  # of a probability: its logarithm is beyond what codes hold


class CoarseMaps:
    """Maps of a coarser grid as an array with a value for each voxel, read where it is cut."""

    def __init__(self, maps: Any, stride: Sequence[int], size: Sequence[int]) -> None:
        self.maps, self.stride, self.shape = maps, stride, (maps.shape[0], *size)

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[np.uint8]:
        """Cut out of all channels."""
        cells = [
            np.arange(*cut.indices(extent)) // step
            for cut, extent, step in zip(key[1:], self.shape[1:], self.stride, strict=True)
        ]
        block = self.maps[(slice(None), *(slice(axis[0], axis[-1] + 1) for axis in cells))]
        inside = np.ix_(np.arange(block.shape[0]), *(axis - axis[0] for axis in cells))
        return np.asarray(block)[inside]


def spatial_stride(request: MapRequest, stages: Sequence[Any], axes: int = 3) -> tuple[int, ...]:
    """Stride of a map on the axes of an image, whose slices a 2d teacher leaves alone."""
    stride = request.stride(stages)
    return (1,) * (axes - len(stride)) + stride


def encode_coarse(request: MapRequest, maps: Tensor, stride: Sequence[int], regions: bool) -> Tensor:
    """Codes (C, *grid), uint8, of a map on voxels.

    Args:
        request: what the map is.
        maps: (C, z, y, x): probabilities at the request's temperature, or M_p^(1/p).
        stride: of the grid.
        regions: nnU-Net's region-based training.
    """
    window = list(stride)
    cells = functional.avg_pool3d(maps.float()[None], window, window, ceil_mode=True, count_include_pad=False)[0]
    if request.kind == "heads":
        exact = cells.double()
        return encode(exact.logit(_SMALLEST) if regions else exact.clamp_min(_SMALLEST).log(), regions)
    largest = cells.max().clamp_min(torch.finfo(cells.dtype).tiny)
    return (cells / largest * _LARGEST).round().to(torch.uint8)


def decode_attention(codes: Tensor, exponent: float, size: Sequence[int]) -> Tensor:
    """Attention map (B, voxels) on a grid, from codes (B, 1, *spatial) that have been cut and warped."""
    roots = resize(codes.clamp(0, _LARGEST), size)[:, 0]
    return attention_map(roots.pow(exponent))


def decode_heads(codes: Tensor, size: Sequence[int], regions: bool) -> Tensor:
    """Probabilities (B, C, *size) at the temperature that they were encoded at."""
    return resize(probabilities(decode(codes, regions), 1.0, regions), size)
