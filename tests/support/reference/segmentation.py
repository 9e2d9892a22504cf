"""The segmentation loss of the HLFD paper: focal and Dice."""

import itertools
import math

import numpy as np

from reference.divergence import probabilities


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
