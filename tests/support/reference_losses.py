"""NumPy reference of the losses, written from the equations (Eq. 1-5 of the paper); no torch, no package code.

Slow and explicit on purpose: loops over samples and voxels, one formula per line. Arrays are (B, C, *spatial),
float64; `regions` means one Bernoulli variable per channel instead of a softmax over the channels.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np


def area_windows(source, target):
    """Window [start, stop) over which each of `target` cells of an axis with `source` entries averages."""
    return [(math.floor(i * source / target), math.ceil((i + 1) * source / target)) for i in range(target)]


def area_average(maps, size):
    """Mean over the window of each cell, all axes at once."""
    result = np.empty((*maps.shape[:2], *size))
    windows = [area_windows(have, want) for have, want in zip(maps.shape[2:], size, strict=True)]
    for cell in np.ndindex(*size):
        box = tuple(slice(*windows[axis][index]) for axis, index in enumerate(cell))
        for sample, channel in np.ndindex(*maps.shape[:2]):
            result[(sample, channel, *cell)] = np.mean(maps[(sample, channel, *box)])
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


def energy(features, size, exponent):
    """M_p: channel mean of |resize(z)|^p, (B, *size)."""
    resized = resize(features, size)
    return np.sum(np.abs(resized) ** exponent, axis=1) / resized.shape[1]


def concatenated_energy(stages, exponent):
    """M_p of a real concatenation of stages resized to the smallest extent on every axis."""
    size = [min(extents) for extents in zip(*(stage.shape[2:] for stage in stages), strict=True)]
    concatenated = np.concatenate([resize(stage, size) for stage in stages], axis=1)
    return np.sum(np.abs(concatenated) ** exponent, axis=1) / concatenated.shape[1]


def attention_map(energy_map):
    """Flattened and divided by its L2 norm, sample by sample; a zero map stays zero."""
    rows = []
    for sample in energy_map:
        norm = math.sqrt(sum(value**2 for value in sample.ravel()))
        rows.append(sample.ravel() / norm if norm > 0 else np.zeros(sample.size))
    return np.stack(rows)


def attention_distance(student_map, teacher_map):
    """|| student - teacher ||^2, mean over the batch."""
    return sum(np.sum((s - t) ** 2) for s, t in zip(student_map, teacher_map, strict=True)) / len(student_map)


def softmax(values):
    """Softmax over axis 1."""
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def sigmoid(values):
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-values))


def probabilities(logits, temperature, regions):
    """Prediction at a temperature."""
    return sigmoid(logits / temperature) if regions else softmax(logits / temperature)


def _relative_entropy(p, q):
    """p log(p / q), with 0 log 0 = 0."""
    return 0.0 if p == 0 else p * math.log(p / q)


def kl_divergence(student_logits, teacher_probabilities, temperature, regions, valid=None):
    """T^2 times the mean over valid voxels of the whole batch of KL(teacher || student)."""
    student = probabilities(student_logits, temperature, regions)
    total, count = 0.0, 0
    for sample, *voxel in np.ndindex(student.shape[0], *student.shape[2:]):
        if valid is not None and not valid[(sample, 0, *voxel)]:
            continue
        count += 1
        for channel in range(student.shape[1]):
            p = teacher_probabilities[(sample, channel, *voxel)]
            q = student[(sample, channel, *voxel)]
            total += _relative_entropy(p, q) + (_relative_entropy(1 - p, 1 - q) if regions else 0)
    return temperature**2 * total / count if count else 0.0


def valid_cells(ignored, size):
    """A cell is valid if no voxel of its window is ignored, (B, 1, *size)."""
    result = np.ones((len(ignored), 1, *size), dtype=bool)
    windows = [area_windows(have, want) for have, want in zip(ignored.shape[2:], size, strict=True)]
    for sample, *cell in np.ndindex(len(ignored), *size):
        for voxel in itertools.product(*(range(*windows[axis][index]) for axis, index in enumerate(cell))):
            if ignored[(sample, 0, *voxel)]:
                result[(sample, 0, *cell)] = False
    return result


def focal(logits, target, gamma, regions, ignored=None):
    """Mean of (1 - p_t)^gamma (-log p_t) over voxels that are not ignored (regions: and channels).

    Target: labels (B, 1, *spatial); regions (B, C, *spatial).
    """
    p = probabilities(logits, 1, regions)
    terms = []
    for sample, *voxel in np.ndindex(len(p), *p.shape[2:]):
        if ignored is not None and ignored[(sample, 0, *voxel)]:
            continue
        if regions:
            channels = [(p[(sample, c, *voxel)], target[(sample, c, *voxel)]) for c in range(p.shape[1])]
            of_target = [each if inside else 1 - each for each, inside in channels]
        else:
            of_target = [p[(sample, int(target[(sample, 0, *voxel)]), *voxel)]]
        terms += [(1 - each) ** gamma * -math.log(each) for each in of_target]
    return sum(terms) / len(terms) if terms else 0.0


def dice(logits, target, regions, batch_dice, ignored=None, smooth=1e-5):
    """Soft Dice 2 |P G| / (|P| + |G|) without the background for labels; pooled over the batch or mean over it."""
    p = probabilities(logits, 1, regions)
    channels = range(p.shape[1]) if regions else range(1, p.shape[1])
    counted = np.ones(p[:, 0].shape) if ignored is None else 1.0 - ignored[:, 0]
    groups = [list(range(len(p)))] if batch_dice else [[sample] for sample in range(len(p))]
    values = []
    for group, channel in itertools.product(groups, channels):
        truth = target[group, channel] != 0 if regions else target[group, 0] == channel
        predicted = p[group, channel] * counted[group]
        truth = truth * counted[group]
        overlap = np.sum(predicted * truth)
        values.append((2 * overlap + smooth) / (np.sum(predicted) + np.sum(truth) + smooth))
    return sum(values) / len(values)


def focal_dice(logits, target, *, regions, batch_dice, gamma=2.0, ignored=None):
    """0.5 focal + 0.5 (1 - Dice)."""
    return 0.5 * focal(logits, target, gamma, regions, ignored) + 0.5 * (
        1 - dice(logits, target, regions, batch_dice, ignored)
    )


def convolve_1x1(maps, weight, bias):
    """1x1 convolution of (B, C, *spatial) with a weight (K, C) and a bias (K,)."""
    mixed = np.stack([sum(row[c] * maps[:, c] for c in range(maps.shape[1])) for row in weight], axis=1)
    return mixed + bias.reshape(1, -1, *(1,) * (maps.ndim - 2))


@dataclass
class Teacher:
    """Encoder maps and logits, highest resolution first, and which stages and outputs teach."""

    features: list
    logits: list
    mids: tuple
    late: int
    heads: tuple


def mean_attention(maps):
    """Mean of the teachers' attention maps, normalized again."""
    return attention_map(sum(maps) / len(maps))


def hlfd_feature_terms(features, early, mids, teachers, exponent):
    """UFD (Eq. 1) and IFD (Eq. 2) of a student whose roles are `early` and `mids`."""
    mid_energies = [concatenated_energy([each.features[i] for i in each.mids], exponent) for each in teachers]
    late_energies = [
        energy(each.features[each.late], each.features[each.late].shape[2:], exponent) for each in teachers
    ]
    teacher_mid = mean_attention([attention_map(each) for each in mid_energies])
    teacher_late = mean_attention([attention_map(each) for each in late_energies])
    early_map = attention_map(energy(features[early], mid_energies[0].shape[1:], exponent))
    ufd = attention_distance(early_map, teacher_mid)
    ifd = 0.0
    for stage in mids:
        stage_map = attention_map(energy(features[stage], late_energies[0].shape[1:], exponent))
        ifd += attention_distance(stage_map, teacher_late)
    return {"ufd": ufd, "ifd": ifd}


def hlfd_pixel_terms(maps, teachers, temperature, regions, pixel_grid, ignored=None):
    """UPD (Eq. 3) and IPD (Eq. 4) of the student's pixel logits `maps`, deepest (early) first, then the mids.

    `ignored`: (B, 1, *image) where the divergence leaves voxels out.
    """
    middle = []
    for each in teachers:
        heads = [probabilities(each.logits[i], temperature, regions) for i in (each.heads if each.heads else [0])]
        smallest = [min(extents) for extents in zip(*(head.shape[2:] for head in heads), strict=True)]
        middle.append(sum(resize(head, smallest) for head in heads) / len(heads))
    p_mid = sum(middle) / len(teachers)
    p_late = sum(probabilities(each.logits[0], temperature, regions) for each in teachers) / len(teachers)

    def divergence(logits, p):
        valid = None if ignored is None else valid_cells(ignored, p.shape[2:])
        return kl_divergence(logits, p, temperature, regions, valid)

    upd = divergence(resize(maps[0], p_mid.shape[2:]), p_mid)
    if pixel_grid == "image":
        single = [divergence(resize(each, p_late.shape[2:]), p_late) for each in maps[1:]]
    else:
        single = [divergence(each, resize(p_late, each.shape[2:])) for each in maps[1:]]
    return {"upd": upd, "ipd": sum(single) / len(single)}
