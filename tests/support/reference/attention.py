"""Attention maps (Eq. 1 and 2 of the HLFD paper) and the distances between them."""

import math

import numpy as np

from reference.grids import resize


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


def mean_attention(maps):
    """Mean of the teachers' attention maps, normalized again."""
    return attention_map(sum(maps) / len(maps))


def attention_pair(features, teacher_features, student_stage, teacher_stage, exponent):
    """|| A(z^s) - A(z^t) ||^2, the student resized to the teacher's grid, mean over the batch."""
    size = teacher_features[0][teacher_stage].shape[2:]
    taught = mean_attention([attention_map(energy(each[teacher_stage], size, exponent)) for each in teacher_features])
    return attention_distance(attention_map(energy(features[student_stage], size, exponent)), taught)
