"""Attention maps of encoder features and their distance (the feature-level half of HLFD, Eq. 1 and 2).

Shapes: features (B, C, *spatial); energy maps (B, *spatial); attention maps (B, voxels).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nnunetv2_hlfd.losses.resize import at_least_float32, resize

_EPS = 1e-12


def energy(features: Tensor, size: Sequence[int], exponent: float) -> Tensor:
    r"""Channel mean of the resized activations' magnitude, M_p(z) = 1/C sum_c |resize(z)_c|^p.

    The paper takes "the absolute value of a neuron activation" as its importance, so p = 1 is its reading; p = 2 is
    attention transfer's, p = 4 is used in the authors' published code.

    Args:
        features: (B, C, *spatial).
        size: spatial size to which the features are resized first.
        exponent: p > 0.

    Returns:
        (B, *size), in float32 or float64.
    """
    magnitude = resize(at_least_float32(features), size).abs()
    return (magnitude if exponent == 1 else magnitude.pow(exponent)).mean(dim=1)


def unified_energy(features: Sequence[Tensor], exponent: float) -> Tensor:
    """Energy of several stages resized to the smallest of them and concatenated along the channels (z_mid of Eq. 1).

    The channel mean of a concatenation is the mean of the single channel means weighted by their channel counts, so
    no concatenation is built. Normalization comes afterwards, once.

    Args:
        features: stages, each (B, C_i, *spatial_i).
        exponent: see `energy`.

    Returns:
        (B, *smallest spatial), the smallest size on every axis.
    """
    size = smallest_size(features)
    channels = [stage.shape[1] for stage in features]
    weighted = [energy(stage, size, exponent) * stage.shape[1] for stage in features]
    return torch.stack(weighted).sum(dim=0) / sum(channels)


def attention_map(energy_map: Tensor) -> Tensor:
    """Flatten an energy map and normalize it to unit L2 norm per sample, A(z).

    A map that is zero everywhere stays zero, and so does its gradient (for a patch of background the student's maps
    are exactly 0 before training). Dividing by the (constant) maximum first changes nothing but the range of the
    squares, which would overflow for large activations and exponents.

    Args:
        energy_map: (B, *spatial).

    Returns:
        (B, voxels).
    """
    flat = energy_map.flatten(start_dim=1)
    largest = flat.detach().amax(dim=1, keepdim=True).clamp_min(_EPS)
    return functional.normalize(flat / largest, dim=1, eps=_EPS)


def attention_distance(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Squared L2 distance of two attention maps, mean over the batch: 2 - 2 cos for maps that are not zero.

    The paper prints Eq. 1 and 2 without an outer norm, as differences of maps, which are no scalars; the squared L2
    norm is what its code and attention transfer use. It lies in [0, 2] and does not depend on the patch size.

    Args:
        student_map: (B, voxels).
        teacher_map: (B, voxels).
    """
    return (student_map - teacher_map).square().sum(dim=1).mean()


def mean_attention(maps: Sequence[Tensor]) -> Tensor:
    """One attention map from those of several teachers: their mean, normalized again.

    Args:
        maps: one (B, voxels) map for each teacher.
    """
    return maps[0] if len(maps) == 1 else functional.normalize(torch.stack(list(maps)).mean(dim=0), dim=1, eps=_EPS)


def smallest_size(maps: Sequence[Tensor]) -> tuple[int, ...]:
    """Smallest extent on every spatial axis over (B, C, *spatial) maps."""
    return tuple(min(extents) for extents in zip(*(single.shape[2:] for single in maps), strict=True))
