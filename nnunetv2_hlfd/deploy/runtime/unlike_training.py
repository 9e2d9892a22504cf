"""What in an image is unlike the training images, so that a person should look at the segmentation."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .description import Description
from .readers.reader import Image

_FAR = 1.5  # times smaller or larger than any spacing of the training
_MOST_VOXELS = 10**6  # that percentiles are taken of


def compare_image(image: Image, model: Description) -> list[str]:
    """Compare orientation, spacing and intensities with those of the training, as far as the model tells them."""
    return [*_orientation(image, model), *_spacing(image, model), *_intensities(image, model)]


def compare_found(labels: NDArray[np.integer], image: Image, model: Description) -> list[str]:
    """Compare the intensities inside the labels that were found (z, y, x) with those of the training."""
    found = labels > 0
    if not found.any():
        return []
    warnings = []
    for number, (channel, known) in enumerate(zip(image.data, model.normalization, strict=True)):
        median = float(np.median(channel[found]))
        if known.lower < known.upper and not known.lower <= median <= known.upper:
            warnings.append(
                f"{model.channel_name(number)}: what was found has a median of {median:.4g}; inside the labels of the "
                f"training images 99 % of the voxels have {known.lower:.4g} to {known.upper:.4g}"
            )
    return warnings


def _orientation(image: Image, model: Description) -> list[str]:
    known = model.training.orientations if model.training else ()
    if not known or image.orientation is None or image.orientation in known:
        return []
    return [f"the voxel axes point to {image.orientation}, those of the training images to {' or '.join(known)}"]


def _spacing(image: Image, model: Description) -> list[str]:
    known = model.training.spacing if model.training else ()
    far = any(
        size < least / _FAR or size > most * _FAR for size, (least, most) in zip(image.spacing, known, strict=False)
    )
    if not far:
        return []
    least, most = zip(*known, strict=True)
    return [
        f"the spacing is {_sizes(image.spacing)} mm (z, y, x), that of the training images {_sizes(least)} to "
        f"{_sizes(most)}"
    ]


def _intensities(image: Image, model: Description) -> list[str]:
    warnings = []
    for number, (channel, known) in enumerate(zip(image.data, model.normalization, strict=True)):
        name = model.channel_name(number)
        values = channel[channel != 0]
        if not values.size or values.min() == values.max():
            warnings.append(f"{name}: all voxels have the same value")
            continue
        low, high = np.percentile(values[:: 1 + values.size // _MOST_VOXELS], (0.5, 99.5))
        if known.lower < known.upper and (high < known.lower or low > known.upper):
            warnings.append(
                f"{name}: the intensities are {low:.4g} to {high:.4g}; inside the labels of the training images they "
                f"are {known.lower:.4g} to {known.upper:.4g}"
            )
    return warnings


def _sizes(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:.3g}" for size in sizes)
