"""The sliding window over an image, in batches. Works on NumPy arrays and, given torch, on tensors."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tile = tuple[Any, ...]  # slices into (C, z, y, x); an index for z where the network is 2d

_BATCH_VOXELS = 2**18  # on a processor more at a time gains nothing and costs memory


def pad_to_patch(image: NDArray[Any], patch_size: Sequence[int]) -> tuple[NDArray[Any], tuple[slice, ...]]:
    """Pad (C, z, y, x) with zeros to at least the patch; return it with the slices that take them off again."""
    extents = image.shape[-len(patch_size) :]
    missing = [max(patch - extent, 0) for patch, extent in zip(patch_size, extents, strict=True)]
    before = [0] * (image.ndim - len(patch_size)) + [count // 2 for count in missing]
    after = [0] * (image.ndim - len(patch_size)) + [count - count // 2 for count in missing]
    inside = tuple(slice(first, first + extent) for first, extent in zip(before, image.shape, strict=True))
    return np.pad(image, list(zip(before, after, strict=True))), inside


def tile_positions(extents: Sequence[int], patch_size: Sequence[int], step_size: float) -> list[Tile]:
    """Return nnU-Net's tiles of an image of these (z, y, x) extents, at most `step_size` patches apart.

    A 2d patch is moved over every slice.
    """
    starts = [
        _starts(extent, patch, step_size) for extent, patch in zip(extents[-len(patch_size) :], patch_size, strict=True)
    ]
    patches = [
        tuple(slice(start, start + patch) for start, patch in zip(corner, patch_size, strict=True))
        for corner in itertools.product(*starts)
    ]
    if len(patch_size) == len(extents):
        return [(slice(None), *patch) for patch in patches]
    return [(slice(None), z, *patch) for z in range(extents[0]) for patch in patches]


def _starts(extent: int, patch: int, step_size: float) -> list[int]:
    count = int(np.ceil((extent - patch) / (patch * step_size))) + 1
    step = (extent - patch) / max(count - 1, 1)
    return [int(np.round(step * index)) for index in range(count)]


def gaussian_window(patch_size: Sequence[int]) -> NDArray[np.float32]:
    """Return nnU-Net's weights of a patch: a Gaussian of sigma 1/8 of the patch, 10 at its center, nowhere 0."""
    window = np.ones((), np.float64)
    for extent in patch_size:
        sigma = extent / 8
        distance = np.arange(extent) - extent // 2
        line = np.where(np.abs(distance) <= int(4 * sigma + 0.5), np.exp(-0.5 * (distance / sigma) ** 2), 0)
        window = np.multiply.outer(window, line)
    window *= 10
    return np.maximum(window, window[window > 0].min()).astype(np.float32)


def batch_size(patch_size: Sequence[int], voxels: int = _BATCH_VOXELS) -> int:
    """Return how many tiles to run at a time."""
    return max(1, voxels // int(np.prod(patch_size)))


def predict_tiles(
    image: Any,
    network: Callable[[Any], Any],
    tiles: Sequence[Tile],
    *,
    into: Any,
    weight: Any,
    window: Any,
    mirror_axes: Sequence[int],
    batch: int,
    library: Any,
) -> None:
    """Write the weighted mean of the tiles' logits into `into`.

    Args:
        image: (C, z, y, x), at least as large as a tile.
        network: (B, C, *patch) to (B, K, *patch).
        tiles: from `tile_positions`.
        into: zeros (K, z, y, x).
        weight: zeros (z, y, x).
        window: weights of a patch's voxels.
        mirror_axes: of the patch; the mean over all their combinations is taken.
        batch: tiles at a time.
        library: the module that the arrays are of, numpy or torch.
    """
    for first in range(0, len(tiles), batch):
        chosen = tiles[first : first + batch]
        logits = _mirrored(library.stack([image[tile] for tile in chosen]), network, mirror_axes, library)
        for tile, tile_logits in zip(chosen, logits, strict=True):
            into[tile] += tile_logits * window
            weight[tile[1:]] += window
    into /= weight


def _mirrored(batch: Any, network: Callable[[Any], Any], mirror_axes: Sequence[int], library: Any) -> Any:
    logits = network(batch)
    spatial = [axis + 2 for axis in mirror_axes]
    combinations = [axes for count in range(1, len(spatial) + 1) for axes in itertools.combinations(spatial, count)]
    for axes in combinations:
        logits = logits + library.flip(network(library.flip(batch, axes)), axes)
    return logits / (len(combinations) + 1)
