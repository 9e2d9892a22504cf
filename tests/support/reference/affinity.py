"""Affinities of nodes of a grid and of the regions of classes."""

import math

import numpy as np

from reference.grids import area_average, max_pool


def cosine(a, b):
    """a b / (|a| |b|); 0 where one of them is zero."""
    lengths = math.sqrt(np.sum(a * a)) * math.sqrt(np.sum(b * b))
    return float(np.sum(a * b)) / lengths if lengths > 0 else 0.0


def affinities(vectors):
    """Cosine of every pair of a list of vectors, (N, N)."""
    return np.array([[cosine(a, b) for b in vectors] for a in vectors])


def node_affinities(features, grid):
    """Affinities (B, N, N) of the max-pooled cells of a grid with N cells."""
    pooled = max_pool(features, grid)
    return np.stack([affinities([sample[(slice(None), *cell)] for cell in np.ndindex(*grid)]) for sample in pooled])


def class_membership(target, classes, regions, ignored=None):
    """1 where a voxel belongs to a class, (B, K, *image): labels, or what lies in no region and then the regions."""
    members = np.zeros((len(target), classes + 1 if regions else classes, *target.shape[2:]))
    for sample, *voxel in np.ndindex(len(target), *target.shape[2:]):
        if ignored is not None and ignored[(sample, 0, *voxel)]:
            continue
        if regions:
            inside = [channel for channel in range(classes) if target[(sample, channel, *voxel)]]
            belongs = [channel + 1 for channel in inside] if inside else [0]
        else:
            belongs = [int(target[(sample, 0, *voxel)])]
        for each in belongs:
            members[(sample, each, *voxel)] = 1
    return members


def class_vector(features, share):
    """Mean of the vectors of one sample's (C, *spatial) features, weighted by a class's share (*spatial) of a cell."""
    total, weight = np.zeros(len(features)), 0.0
    for cell in np.ndindex(*share.shape):
        total += share[cell] * features[(slice(None), *cell)]
        weight += share[cell]
    return total / weight


def region_affinity_distance(features, teacher_features, members):
    """Mean over samples and pairs of present classes of (v_ij^s - v_ij^t)^2, for one stage of each network."""
    shares = [area_average(members, each.shape[2:]) for each in (features, *teacher_features)]
    squares = []
    for sample in range(len(members)):
        present = [k for k in range(members.shape[1]) if members[sample, k].any()]
        for number, i in enumerate(present):
            for j in present[number + 1 :]:
                mine, *taught = (
                    cosine(class_vector(maps[sample], share[sample, i]), class_vector(maps[sample], share[sample, j]))
                    for maps, share in zip((features, *teacher_features), shares, strict=True)
                )
                squares.append((mine - sum(taught) / len(taught)) ** 2)
    return sum(squares) / len(squares) if squares else 0.0
