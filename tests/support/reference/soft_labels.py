"""NumPy reference of the soft-label losses, written from the equations; no torch, no package code.

Loops over samples, classes and voxels. Logits and targets p are (B, C, *spatial), float64; q is the prediction.
"""

import math

import numpy as np

from reference.divergence import probabilities
from reference.grids import area_average, valid_cells

SMOOTH = 1e-5


def log_sigmoid(x):
    """log(1 / (1 + exp(-x))), also for large -x."""
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def cross_entropy(logits, p):
    """-sum_c p_c log softmax(logits)_c of one voxel; logits and p (C,)."""
    largest = logits.max()
    log_sum = largest + math.log(sum(math.exp(x - largest) for x in logits))
    return sum(p_c * (log_sum - x) for x, p_c in zip(logits, p, strict=True))


def binary_cross_entropy(logit, p):
    """-p log q - (1 - p) log(1 - q), q = sigmoid(logit)."""
    return -p * log_sigmoid(logit) - (1 - p) * log_sigmoid(-logit)


def pixel_terms(logits, p, gamma, regions):
    """TV^gamma CE of each voxel: a list of one number (labels) or of one for each channel (regions), by voxel."""
    q = probabilities(logits, 1, regions)
    terms = {}
    for sample, *voxel in np.ndindex(len(p), *p.shape[2:]):
        place = (sample, slice(None), *voxel)
        distance = np.abs(p[place] - q[place])
        if regions:
            terms[(sample, *voxel)] = [
                d**gamma * binary_cross_entropy(x, p_c)
                for d, x, p_c in zip(distance, logits[place], p[place], strict=True)
            ]
        else:
            terms[(sample, *voxel)] = [(0.5 * distance.sum()) ** gamma * cross_entropy(logits[place], p[place])]
    return terms


def pixel_loss(logits, p, gamma, regions, valid=None, sum_over_regions=False):
    """Mean over the valid voxels and, unless they are summed, the channels."""
    terms = pixel_terms(logits, p, gamma, regions)
    counted = [t for (sample, *voxel), t in terms.items() if valid is None or valid[(sample, 0, *voxel)]]
    if not counted:
        return 0.0
    return sum(sum(t) if sum_over_regions else sum(t) / len(t) for t in counted) / len(counted)


def dice(logits, p, regions, batch_dice, valid=None):
    """(|p| + |q| - |p - q| + s) / (|p| + |q| + s), mean over classes (labels: foreground) and samples."""
    q = probabilities(logits, 1, regions)
    weight = np.ones((len(p), 1, *p.shape[2:])) if valid is None else valid.astype(float)
    groups = [list(range(len(p)))] if batch_dice else [[sample] for sample in range(len(p))]
    values = []
    for group in groups:
        for channel in range(0 if regions else 1, p.shape[1]):
            p_norm = sum(np.sum(p[b, channel] * weight[b, 0]) for b in group)
            q_norm = sum(np.sum(q[b, channel] * weight[b, 0]) for b in group)
            distance = sum(np.sum(np.abs(p[b, channel] - q[b, channel]) * weight[b, 0]) for b in group)
            values.append((p_norm + q_norm - distance + SMOOTH) / (p_norm + q_norm + SMOOTH))
    return sum(values) / len(values)


def soft_label_loss(logits, p, *, recipe, regions, batch_dice, valid=None, share=0.5, has_ignore_label=False):
    """Paper: (1 - share) TV^2 CE + share (1 - Dice). nnU-Net: 2 ((1 - share) CE - share Dice)."""
    overlap = dice(logits, p, regions, batch_dice, valid)
    if recipe == "paper":
        return (1 - share) * pixel_loss(logits, p, 2, regions, valid) + share * (1 - overlap)
    summed = regions and has_ignore_label
    return 2 * ((1 - share) * pixel_loss(logits, p, 0, regions, valid, summed) - share * overlap)


def deep_soft_label_loss(logits, weights, p, ignored=None, **options):
    """Weighted sum over the outputs; the target and the valid voxels of each come from the finest."""
    total = 0.0
    for output, weight in zip(logits, weights, strict=True):
        if weight:
            size = output.shape[2:]
            valid = None if ignored is None else valid_cells(ignored, size)
            total += weight * soft_label_loss(output, area_average(p, size), valid=valid, **options)
    return total
