"""Grids: area averages, linear interpolation, the cells without an ignored voxel, 1x1 convolutions."""

import itertools
import math

import numpy as np


def area_windows(source, target):
    """Window [start, stop) over which each of `target` cells of an axis with `source` entries averages."""
    return [(math.floor(i * source / target), math.ceil((i + 1) * source / target)) for i in range(target)]


def area_average(maps, size):
    """Mean over the window of each cell, all axes at once."""
    return over_windows(np.mean, maps, size)


def max_pool(maps, size):
    """Largest value in the window of each cell."""
    return over_windows(np.max, maps, size)


def over_windows(reduce, maps, size):
    """What `reduce` makes of the entries in the window of each cell, sample by sample and channel by channel."""
    result = np.empty((*maps.shape[:2], *size))
    windows = [area_windows(have, want) for have, want in zip(maps.shape[2:], size, strict=True)]
    for cell in np.ndindex(*size):
        box = tuple(slice(*windows[axis][index]) for axis, index in enumerate(cell))
        for sample, channel in np.ndindex(*maps.shape[:2]):
            result[(sample, channel, *cell)] = reduce(maps[(sample, channel, *box)])
    return result


def linear_weights(source, target):
    """(target, source) matrix of linear interpolation; voxel centers at half-integers, edge values repeated."""
    weights = np.zeros((target, source))
    for i in range(target):
        position = (i + 0.5) * source / target - 0.5
        position = min(max(position, 0), source - 1)
        below = math.floor(position)
        above = min(below + 1, source - 1)
        weights[i, below] += 1 - (position - below)
        weights[i, above] += position - below
    return weights


def resize(maps, size):
    """Area average on axes that shrink, then linear interpolation on axes that grow."""
    maps = area_average(maps, [min(have, want) for have, want in zip(maps.shape[2:], size, strict=True)])
    for axis, want in enumerate(size, start=2):
        if want > maps.shape[axis]:
            weights = linear_weights(maps.shape[axis], want)
            maps = np.moveaxis(np.tensordot(weights, maps, axes=(1, axis)), 0, axis)
    return maps


def valid_cells(ignored, size):
    """A cell is valid if no voxel of its window is ignored, (B, 1, *size)."""
    result = np.ones((len(ignored), 1, *size), dtype=bool)
    windows = [area_windows(have, want) for have, want in zip(ignored.shape[2:], size, strict=True)]
    for sample, *cell in np.ndindex(len(ignored), *size):
        for voxel in itertools.product(*(range(*windows[axis][index]) for axis, index in enumerate(cell))):
            if ignored[(sample, 0, *voxel)]:
                result[(sample, 0, *cell)] = False
    return result


def convolve_1x1(maps, weight, bias):
    """1x1 convolution of (B, C, *spatial) with a weight (K, C) and a bias (K,)."""
    mixed = np.stack([sum(row[c] * maps[:, c] for c in range(maps.shape[1])) for row in weight], axis=1)
    return mixed + bias.reshape(1, -1, *(1,) * (maps.ndim - 2))
