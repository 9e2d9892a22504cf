"""The terms of the methods beside HLFD, each from the equations of its paper."""

import math

import numpy as np

from reference.affinity import node_affinities, region_affinity_distance
from reference.attention import attention_pair
from reference.divergence import masked_divergence, taught_probabilities
from reference.grids import convolve_1x1, resize

# KD


def kd(logits, teacher_logits, temperature, regions, ignored=None):
    """T^2 KL(p^t || p^s) of the full-resolution outputs, mean over voxels."""
    p = taught_probabilities(teacher_logits, temperature, regions)
    return masked_divergence(logits, p, temperature, regions, ignored)


# AT


def at(features, teacher_features, pairs, exponent):
    """Sum of the distances of the pairs of stages."""
    return sum(attention_pair(features, teacher_features, *pair, exponent) for pair in pairs)


# FitNet


def fitnet(guided, hints, regressors):
    """Mean of (r(resize(z^s)) - z^t)^2 over all elements, then over the teacher networks.

    Regressors: one (weight (K, C), bias (K,)) for each hint.
    """
    errors = []
    for hint, (weight, bias) in zip(hints, regressors, strict=True):
        regressed = convolve_1x1(resize(guided, hint.shape[2:]), weight, bias)
        squares = [(regressed[index] - hint[index]) ** 2 for index in np.ndindex(*hint.shape)]
        errors.append(sum(squares) / len(squares))
    return sum(errors) / len(errors)


# CWD


def spatial_softmax(values):
    """Softmax over all entries of one channel's list of values."""
    exponentials = np.exp(values - np.max(values))
    return exponentials / np.sum(exponentials)


def cwd(logits, teacher_logits, temperature, ignored=None):
    """T^2 / C sum_c KL(phi(y_c^t) || phi(y_c^s)), phi the softmax over the voxels of a channel; mean over the batch.

    Ignored voxels leave the softmax; a sample without any other voxel adds 0.
    """
    batch, channels = logits.shape[:2]
    total = 0.0
    for sample, channel in np.ndindex(batch, channels):
        kept = np.ones(logits.shape[2:], dtype=bool) if ignored is None else ~ignored[sample, 0]
        if not kept.any():
            continue
        q = spatial_softmax(logits[sample, channel][kept] / temperature)
        taught = [spatial_softmax(each[sample, channel][kept] / temperature) for each in teacher_logits]
        for voxel, q_voxel in enumerate(q):
            p_voxel = sum(each[voxel] for each in taught) / len(taught)
            total += p_voxel * math.log(p_voxel / q_voxel)
    return temperature**2 * total / (batch * channels)


# SKD


def skd_pixel(logits, teacher_logits, regions, ignored=None):
    """KL(p^t || p^s) of the final maps at temperature 1."""
    return kd(logits, teacher_logits, 1.0, regions, ignored)


def skd_pair(features, teacher_features, grid):
    """1/N^2 sum_ij (a_ij^s - a_ij^t)^2, mean over the batch; a^t the mean over the teacher networks."""
    mine = node_affinities(features, grid)
    taught = sum(node_affinities(each, grid) for each in teacher_features) / len(teacher_features)
    batch, nodes = mine.shape[:2]
    total = 0.0
    for sample, i, j in np.ndindex(batch, nodes, nodes):
        total += (mine[sample, i, j] - taught[sample, i, j]) ** 2
    return total / nodes**2 / batch


# EMKD


def emkd_prediction(logits, teacher_logits, temperature, regions, ignored=None):
    """T^2 KL(p^t || p^s) of the final maps."""
    return kd(logits, teacher_logits, temperature, regions, ignored)


def emkd_importance(features, teacher_features, low, high, exponent):
    """Distances of the importance maps of the low and the high pair of stages."""
    return at(features, teacher_features, (low, high), exponent)


def emkd_region(features, teacher_features, low, high, members):
    """Distances of the region affinities of the low and the high pair of stages."""
    return sum(
        region_affinity_distance(features[mine], [each[theirs] for each in teacher_features], members)
        for mine, theirs in (low, high)
    )


# IMF


def convolve_depthwise(maps, weight, bias):
    """Each channel with its own 3 x 3 (x 3) window, padded by zeros; weight (C, 3, 3, ...), bias (C,)."""
    padded = np.pad(maps, [(0, 0), (0, 0), *[(1, 1)] * (maps.ndim - 2)])
    result = np.empty(maps.shape)
    for sample, channel, *voxel in np.ndindex(*maps.shape):
        box = tuple(slice(index, index + 3) for index in voxel)
        result[(sample, channel, *voxel)] = np.sum(padded[(sample, channel, *box)] * weight[channel]) + bias[channel]
    return result


def normalize_samples(maps, scale, shift, eps=1e-5):
    """Group normalization with one group: each sample to mean 0 and variance 1, then scale and shift by channel."""
    result = np.empty(maps.shape)
    for sample, values in enumerate(maps):
        mean = np.sum(values) / values.size
        variance = np.sum((values - mean) ** 2) / values.size
        for channel in range(maps.shape[1]):
            unit = (values[channel] - mean) / math.sqrt(variance + eps)
            result[sample, channel] = scale[channel] * unit + shift[channel]
    return result


def imf_branch(features, branch):
    """Depthwise, pointwise, normalization, ReLU, logits. Branch: five (weight, bias), None for the ReLU."""
    depthwise, pointwise, normalization, _, logits = branch
    mixed = convolve_1x1(convolve_depthwise(features, *depthwise), *pointwise)
    return convolve_1x1(np.maximum(normalize_samples(mixed, *normalization), 0), *logits)


def imf_merge(branch_logits, weights):
    """Attentive merge on the first (shallowest) branch's grid: sum over branches j of w_jc b_jc."""
    size = branch_logits[0].shape[2:]
    merged = np.zeros(branch_logits[0].shape)
    for row, logits in zip(weights, branch_logits, strict=True):
        resized = resize(logits, size)
        for channel, weight in enumerate(row):
            merged[:, channel] += weight * resized[:, channel]
    return merged


def imf_terms(features, branches, weights, teacher_logits, temperature, regions, ignored=None):
    """imf_branches and imf_merged of the features (shallowest first) and their branches."""
    late = taught_probabilities(teacher_logits, temperature, regions)
    logits = [imf_branch(each, branch) for each, branch in zip(features, branches, strict=True)]

    def divergence(each):
        return masked_divergence(each, resize(late, each.shape[2:]), temperature, regions, ignored)

    return {
        "imf_branches": sum(divergence(each) for each in logits) / len(logits),
        "imf_merged": divergence(imf_merge(logits, weights)),
    }


# DSKD


def loss_weights(losses):
    """Softmax of the losses themselves."""
    exponentials = [math.exp(each - max(losses)) for each in losses]
    return [each / sum(exponentials) for each in exponentials]


def dskd_features(features, teacher_features, stages, late, exponent):
    """d_l for each shallow stage."""
    return [attention_pair(features, teacher_features, stage, late, exponent) for stage in stages]


def dskd_pixels(features, stages, heads, teacher_logits, temperature, regions, ignored=None):
    """k_l for each shallow stage; heads: one (weight (K, C), bias (K,)) for each."""
    late = taught_probabilities(teacher_logits, temperature, regions)
    losses = []
    for stage, head in zip(stages, heads, strict=True):
        logits = convolve_1x1(features[stage], *head)
        losses.append(masked_divergence(logits, resize(late, logits.shape[2:]), temperature, regions, ignored))
    return losses


def weighted_sum(losses, weights):
    """sum_l a_l d_l."""
    return sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
