"""nnU-Net's DefaultPreprocessor for prediction, and its inverse on the network's output."""

from dataclasses import dataclass

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from .description import Description, Normalization
from .errors import UserError
from .readers.reader import Image
from .resample import new_shape, resample

_EPSILON = 1e-8


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The network's input (C, z, y, x) and what undoes the way there. Axes are transposed as the plans say."""

    data: NDArray[np.float32]
    spacing: tuple[float, ...]  # before resampling
    target_spacing: tuple[float, ...]
    full_shape: tuple[int, ...]  # before cropping
    box: tuple[slice, ...]  # of the crop


def prepare(image: Image, model: Description) -> Prepared:
    """Transpose, crop to what is not zero, normalize, resample: nnU-Net's order.

    Raises:
        UserError: for values that overflow when they are scaled, or are not those of the model's images.
    """
    axes = model.transpose
    data = image.data.transpose([0, *(axis + 1 for axis in axes)])
    spacing = tuple(image.spacing[axis] for axis in axes)
    target = model.spacing if len(model.spacing) == 3 else (spacing[0], *model.spacing)
    mask = _filled(np.any(data != 0, axis=0))
    box = _bounding_box(mask)
    data, inside = data[(slice(None), *box)], mask[box]
    channels = zip(data, model.normalization, strict=True)
    try:
        with np.errstate(over="raise"):  # an infinite deviation would make all values 0
            data = np.stack([normalize(channel, inside, how) for channel, how in channels])
    except FloatingPointError as error:
        raise UserError(f"the image's values overflow when they are scaled ({error})") from error
    shape = new_shape(data.shape[1:], spacing, target)
    data = resample(data, shape, spacing, target, model.resample_image)
    if not np.isfinite(data).all():
        raise UserError("the image has NaN or infinite values after normalization")
    return Prepared(
        data=data,
        spacing=spacing,
        target_spacing=target,
        full_shape=mask.shape,
        box=box,
    )


def normalize(channel: NDArray[np.float32], mask: NDArray[np.bool_], how: Normalization) -> NDArray[np.float32]:
    """Apply one of nnU-Net's intensity normalizations.

    Raises:
        UserError: for RGB values outside 0..255, or a scheme that is not nnU-Net's own.
    """
    if how.scheme == "CTNormalization":
        return (channel.clip(how.lower, how.upper) - np.float32(how.mean)) / np.float32(max(how.std, _EPSILON))
    if how.scheme == "ZScoreNormalization":
        values = channel[mask] if how.use_mask else channel
        scaled = (channel - values.mean()) / max(values.std(), _EPSILON)
        return np.where(mask, scaled, channel) if how.use_mask else scaled
    if how.scheme == "NoNormalization":
        return channel
    if how.scheme == "RescaleTo01Normalization":
        shifted = channel - channel.min()
        return shifted / max(shifted.max(), _EPSILON)
    if how.scheme == "RGBTo01Normalization":
        if channel.min() < 0 or channel.max() > 255:
            raise UserError(f"expected RGB values of 0 to 255, got {channel.min()} to {channel.max()}")
        return channel / np.float32(255)
    raise UserError(f"expected one of nnU-Net's normalizations, got {how.scheme}")


def to_labels(logits: NDArray[np.float32], prepared: Prepared, model: Description) -> NDArray[np.integer]:
    """Turn logits (K, z, y, x) on the network's grid into labels (z, y, x) on the image's."""
    shape = [extent.stop - extent.start for extent in prepared.box]
    logits = resample(logits, shape, prepared.target_spacing, prepared.spacing, model.resample_logits)
    if model.regions_class_order is None:
        inside = logits.argmax(0)
        highest = model.heads - 1
    else:
        inside = np.zeros(shape, np.int64)
        for head, label in zip(logits, model.regions_class_order, strict=True):
            inside[head > 0] = label  # a probability above 1/2
        highest = max(model.regions_class_order)
    labels = np.zeros(prepared.full_shape, np.uint8 if highest < 255 else np.uint16)
    labels[prepared.box] = inside
    return labels.transpose(np.argsort(model.transpose))


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if mask.all():
        return mask
    return SimpleITK.GetArrayFromImage(
        SimpleITK.BinaryFillhole(SimpleITK.GetImageFromArray(mask.astype(np.uint8)), False, 1)
    ).astype(bool)


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the box around what is filled; that of the whole image where nothing is."""
    box = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, mask.shape[axis]))
    return tuple(box)
