"""From an image to its labels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import UserError
from .network import Network
from .preprocess import prepare, to_labels
from .readers.reader import Image
from .tiles import batch_size, gaussian_window, pad_to_patch, predict_tiles, tile_positions


def predict_labels(
    image: Image, networks: Sequence[Network], *, step_size: float = 0.5, mirroring: bool = True
) -> NDArray[np.integer]:
    """Predict the labels (z, y, x) of an image, by the mean of the networks' logits.

    Raises:
        UserError: for an image whose values overflow, or an output that is not finite.
    """
    model = networks[0].description
    prepared = prepare(image, model)
    logits = predict_logits(prepared.data, networks, step_size=step_size, mirroring=mirroring)
    if not np.isfinite(logits).all():
        raise UserError("the network's output is not finite")
    return to_labels(logits, prepared, model)


def predict_logits(
    data: NDArray[np.float32], networks: Sequence[Network], *, step_size: float, mirroring: bool
) -> NDArray[np.float32]:
    """Predict the logits (K, z, y, x) of a prepared image (C, z, y, x) as the mean over the networks."""
    model = networks[0].description
    padded, inside = pad_to_patch(data, model.patch_size)
    tiles = tile_positions(padded.shape[1:], model.patch_size, step_size)
    window = gaussian_window(model.patch_size)
    total: NDArray[np.float32] = np.zeros((model.heads, *padded.shape[1:]), np.float32)
    for network in networks:
        logits = np.zeros_like(total)
        predict_tiles(
            padded,
            network.run,
            tiles,
            into=logits,
            weight=np.zeros(padded.shape[1:], np.float32),
            window=window,
            mirror_axes=(model.mirror_axes or ()) if mirroring else (),
            batch=batch_size(model.patch_size),
            library=np,
        )
        total += logits
    total /= len(networks)
    return total[(slice(None), *inside[1:])]
