"""Resizing of maps with per-axis sizes, and the float precision in which the losses are computed."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_LINEAR_MODE = {2: "bilinear", 3: "trilinear"}


def at_least_float32(values: Tensor) -> Tensor:
    """Return `values` in float32 if they come in half precision, else unchanged."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps to `size`: area (adaptive average) on axes that shrink, linear on axes that grow.

    Args:
        maps: (B, C, *spatial), 2d or 3d.
        size: target size of each spatial axis.

    Returns:
        (B, C, *size). The mean of probabilities over an area is again a probability.
    """
    source = maps.shape[2:]
    if len(size) != len(source):
        raise ValueError(f"Expected a size with {len(source)} axes for maps of shape {tuple(maps.shape)}, got {size}.")
    smaller = [min(have, want) for have, want in zip(source, size, strict=True)]
    if smaller != list(source):
        maps = _area_average(maps, smaller)
    if smaller != list(size):
        maps = functional.interpolate(maps, size=list(size), mode=_LINEAR_MODE[len(size)], align_corners=False)
    return maps


def _area_average(maps: Tensor, size: list[int]) -> Tensor:
    """Adaptive average pooling; plain pooling, which is much faster, where the sizes divide."""
    source = maps.shape[2:]
    if all(have % want == 0 for have, want in zip(source, size, strict=True)):
        window = [have // want for have, want in zip(source, size, strict=True)]
        return functional.avg_pool2d(maps, window) if len(size) == 2 else functional.avg_pool3d(maps, window)
    pool = functional.adaptive_avg_pool2d if len(size) == 2 else functional.adaptive_avg_pool3d
    return pool(maps, size)  # type: ignore[arg-type]  # torch takes lists, its types are tuples of fixed length
