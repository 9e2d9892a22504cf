"""Final maps as 8-bit codes of log probabilities, from which a map of any temperature is computed again.

Code 0 in all channels is background for certain, so that the zeros by which nnU-Net pads crops and rotated patches need
no special case.

Labels: l = log softmax(z). Background: 255 min(-l, L) / L; the others: 255 (1 - min(-l, L) / L), L = 24.
Regions: 255 (z + L) / 2 L of logits z clipped to -L ... L.

Probabilities are wrong by at most 0.024 at temperature 1 and less at higher ones, but for what lies beyond L: it counts
as L, which at temperature 4 is a probability of 0.0025 in place of less.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunetv2_hlfd.losses.resize import resize

FORMAT = "8-bit log probabilities"
CODE_LIMIT = 24.0  # L

_LARGEST = 255  # of a code
_SLICES = 16  # encoded at a time: an image's logits are large, and so is each float copy of them


def encode(logits: Tensor, regions: bool) -> Tensor:
    """Codes of a case's logits.

    Args:
        logits: (K, z, y, x), any floating type.
        regions: nnU-Net's region-based training: a sigmoid for each channel, no background channel.

    Returns:
        (K, z, y, x), uint8.
    """
    encode_slices = _encode_regions if regions else _encode_labels
    return torch.cat([encode_slices(slices.float()) for slices in logits.split(_SLICES, dim=1)], dim=1)


def decode(codes: Tensor, regions: bool) -> Tensor:
    """Logits whose probabilities are, at every temperature, those that were encoded.

    Args:
        codes: (B, K, *spatial), floating: interpolation makes values between the codes, and may exceed them by a bit.
        regions: as for `encode`.

    Returns:
        (B, K, *spatial), the same type. Labels: log probabilities, the logits up to a number for each voxel.
    """
    shares = codes.clamp(0, _LARGEST) / _LARGEST
    if regions:
        return (2 * shares - 1) * CODE_LIMIT
    background, foreground = shares[:, :1], shares[:, 1:]
    return torch.cat([-background, foreground - 1], dim=1) * CODE_LIMIT


def resize_codes(codes: NDArray[np.uint8], size: Sequence[int], regions: bool) -> NDArray[np.uint8]:
    """Codes of the mean probabilities over the voxels of a coarser grid.

    Args:
        codes: (K, z, y, x) of an image.
        size: extents of the other grid over the same image.
        regions: as for `encode`.

    Returns:
        (K, *size).
    """
    logits = decode(torch.from_numpy(codes)[None].float(), regions)
    if not regions:
        return encode(resize(logits.softmax(dim=1), size)[0].log(), regions).numpy()
    return encode(resize(logits.sigmoid(), size)[0].logit(), regions).numpy()


def _encode_labels(logits: Tensor) -> Tensor:
    shares = logits.log_softmax(dim=0).neg_().clamp_(max=CODE_LIMIT) / CODE_LIMIT
    shares[1:] = 1 - shares[1:]
    return _codes(shares)


def _encode_regions(logits: Tensor) -> Tensor:
    return _codes((logits.clamp(-CODE_LIMIT, CODE_LIMIT) / CODE_LIMIT + 1) / 2)


def _codes(shares: Tensor) -> Tensor:
    return (shares * _LARGEST).round_().to(torch.uint8)
