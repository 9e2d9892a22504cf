"""nnU-Net's resampling (`resample_data_or_seg_to_shape`: cubic splines or linear) in NumPy alone.

Separable: one pass for each axis. Like SciPy's zoom with `grid_mode` and edges repeated, which nnU-Net calls through
scikit-image.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from .description import Resampling
from .errors import UserError

Array = NDArray[np.float32]

_MOST_VOXELS = 2**33  # 2000 x 2000 x 2000
_ANISOTROPY = 3  # nnU-Net's ANISO_THRESHOLD
_POLE = np.float32(np.sqrt(3) - 2)  # of the cubic B-spline's inverse filter
_PAD = 12  # samples of repeated edge, as SciPy; the filter has forgotten the border by then: pole^12 = 1e-7


def resample(
    data: Array, shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float], how: Resampling
) -> Array:
    """Resample (C, z, y, x) to (C, *shape).

    Args:
        data: images or logits.
        shape: of the result, without channels.
        spacing: in mm; with `new_spacing` decides whether one axis is resampled apart (strong anisotropy).
        new_spacing: in mm.
        how: spline order in the plane (1 or 3), order along an axis that is resampled apart (0).
    """
    if tuple(data.shape[1:]) == tuple(shape):
        return data
    apart = _separate_axis(spacing, new_spacing, how.force_separate_z)
    axes = [axis for axis in range(3) if axis != apart]
    result = np.empty((len(data), *shape), np.float32)
    for channel, volume in enumerate(data):
        resized = volume
        for axis in axes:
            resized = _resize_axis(resized, axis, shape[axis], how.order)
        if how.order > 1:  # a spline overshoots; scikit-image clips to the range of what it was given
            resized = np.clip(resized, volume.min(tuple(axes), keepdims=True), volume.max(tuple(axes), keepdims=True))
        if apart is not None:
            resized = _nearest(resized, apart, shape[apart])
        result[channel] = resized
    return result


def new_shape(shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]) -> tuple[int, ...]:
    """Compute the extents after resampling, rounded as nnU-Net does.

    Raises:
        UserError: for an image of no or far too many voxels at the new spacing.
    """
    extents = tuple(round(old / new * extent) for extent, old, new in zip(shape, spacing, new_spacing, strict=True))
    if not 0 < prod(extents) <= _MOST_VOXELS:
        raise UserError(f"the image has {tuple(spacing)} mm voxels and would have the size {extents} at the model's")
    return extents


def _separate_axis(spacing: Sequence[float], new_spacing: Sequence[float], force: bool | None) -> int | None:
    """Return the axis of coarsest spacing where nnU-Net resamples it apart; the old spacing decides before the new."""
    if force is False:
        return None
    for grid in (spacing, new_spacing):
        if force or max(grid) / min(grid) > _ANISOTROPY:
            coarsest = [axis for axis in range(3) if grid[axis] == max(grid)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def _coordinates(extent: int, count: int) -> NDArray[np.float64]:
    """Return the positions of the new voxels' centers on the old grid."""
    return (np.arange(count, dtype=np.float64) + 0.5) * (extent / count) - 0.5


def _nearest(volume: Array, axis: int, count: int) -> Array:
    extent = volume.shape[axis]
    index = np.floor(_coordinates(extent, count) + 0.5).astype(int).clip(0, extent - 1)
    return volume.take(index, axis)


def _resize_axis(volume: Array, axis: int, count: int, order: int) -> Array:
    extent = volume.shape[axis]
    if extent == count:
        return volume
    lines = np.ascontiguousarray(np.moveaxis(volume, axis, 0))
    position = _coordinates(extent, count)
    if order == 1:
        position = position.clip(0, extent - 1)
        weights: tuple[NDArray[np.float64], ...] = (1 - position % 1, position % 1)
    elif order == 3:
        lines = _spline_coefficients(np.pad(lines, ((_PAD, _PAD), (0, 0), (0, 0)), mode="edge"))
        weights = _cubic_weights(position % 1)
        position = position + _PAD - 1
    else:
        raise UserError(f"Expected spline order 1 or 3, got {order}.")
    first = np.floor(position).astype(int)
    resized = np.zeros((count, *lines.shape[1:]), np.float32)
    for tap, weight in enumerate(weights):
        resized += lines[(first + tap).clip(0, len(lines) - 1)] * weight.astype(np.float32)[:, None, None]
    return np.moveaxis(resized, 0, axis)


def _spline_coefficients(lines: Array) -> Array:
    """Compute cubic B-spline coefficients along the first axis (Unser 1993): a causal, then an anticausal recursion."""
    count = len(lines)
    lines[0] /= 1 - _POLE
    for index in range(1, count):
        lines[index] += _POLE * lines[index - 1]
    lines[-1] *= -_POLE / (1 - _POLE)
    for index in range(count - 2, -1, -1):
        lines[index] = _POLE * (lines[index + 1] - lines[index])
    return lines * np.float32(6)


def _cubic_weights(fraction: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Evaluate the cubic B-spline at the four nearest knots."""
    t = fraction
    return (1 - t) ** 3 / 6, (4 - 6 * t**2 + 3 * t**3) / 6, (1 + 3 * t + 3 * t**2 - 3 * t**3) / 6, t**3 / 6
