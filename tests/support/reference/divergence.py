"""Predictions at a temperature and the divergence between them (Eq. 3 and 4 of the HLFD paper)."""

import math

import numpy as np

from reference.grids import valid_cells


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


def taught_probabilities(teacher_logits, temperature, regions):
    """p^t: mean of the teacher networks' probabilities."""
    return sum(probabilities(each, temperature, regions) for each in teacher_logits) / len(teacher_logits)


def masked_divergence(logits, p, temperature, regions, ignored):
    """T^2 KL(p || student) on the grid of the logits, cells with an ignored voxel left out."""
    valid = None if ignored is None else valid_cells(ignored, logits.shape[2:])
    return kl_divergence(logits, p, temperature, regions, valid)
