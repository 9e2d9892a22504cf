"""Cosine affinities between feature vectors: of places (SKD) and of classes (EMKD)."""

import torch
from torch import Tensor

_EPS = 1e-12


def cosine_affinity(vectors: Tensor) -> Tensor:
    """Cosine similarity of every pair of vectors; a zero vector has similarity (and gradient) 0.

    Args:
        vectors: (B, N, C).

    Returns:
        (B, N, N).
    """
    length = torch.linalg.vector_norm(vectors, dim=2, keepdim=True)
    unit = torch.where(length > _EPS, vectors / length.clamp_min(_EPS), 0)
    return unit @ unit.transpose(1, 2)


def class_vectors(features: Tensor, membership: Tensor) -> Tensor:
    """Mean feature vector of each class; zero for a class without voxels.

    Args:
        features: (B, C, *spatial).
        membership: share of each class in each cell, (B, K, *spatial).

    Returns:
        (B, K, C).
    """
    weights, values = membership.flatten(start_dim=2), features.flatten(start_dim=2)
    return (weights @ values.transpose(1, 2)) / weights.sum(dim=2, keepdim=True).clamp_min(_EPS)
