"""What a network file says about itself: how its images are prepared and what its outputs mean."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import Any

from .errors import UserError

KEY = "nnunet"  # of the metadata in ONNX and OpenVINO files
FORMAT = 1
_VOXELS = 2**27  # of a patch, far above any
_LABELS = 2**16 - 1


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """Arguments of nnU-Net's `resample_data_or_seg_to_shape`."""

    order: int
    order_z: int
    force_separate_z: bool | None


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """One channel's scheme; the numbers are those of the training set's foreground, used by CTNormalization."""

    scheme: str
    use_mask: bool
    mean: float
    std: float
    lower: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class Label:
    """A label or region: its name, and the values in a segmentation that belong to it."""

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the training images were like.

    Attributes:
        spacing: least and largest in mm, for each axis (z, y, x); empty where it is not known.
        orientations: of their voxel axes, such as LPS; empty where they are not known or do not matter.
    """

    spacing: tuple[tuple[float, float], ...]
    orientations: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Description:
    """Preprocessing and labels of a model. Axes are those of nnU-Net's arrays, (z, y, x) before its transposition."""

    name: str
    file_ending: str
    reader: str  # nnU-Net's name, one of READERS
    transpose: tuple[int, ...]
    spacing: tuple[float, ...]
    patch_size: tuple[int, ...]
    normalization: tuple[Normalization, ...]
    resample_image: Resampling
    resample_logits: Resampling
    heads: int
    regions_class_order: tuple[int, ...] | None
    mirror_axes: tuple[int, ...] | None
    channel_names: tuple[str, ...] = ()  # these three are not in what was exported before 0.2
    labels: tuple[Label, ...] = ()
    training: Training | None = None

    @property
    def channels(self) -> int:
        """Number of channels of a case, whose files may hold several each."""
        return len(self.normalization)

    def channel_name(self, number: int) -> str:
        """For messages."""
        known = number < len(self.channel_names)
        return f"channel {number} ({self.channel_names[number]})" if known else f"channel {number}"

    def to_json(self) -> str:
        """Return the text that is stored in the network file."""
        return json.dumps({"format": FORMAT, **asdict(self)})


def read_description(text: str | None, source: object) -> Description:
    """Read what `Description.to_json` wrote.

    Raises:
        UserError: for a file that carries none, or one that this version does not know.
    """
    if not text:
        raise UserError(f"{source} says nothing about preprocessing. Expected a file made by nnUNetv2_hlfd export.")
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise UserError(f"{source} was written by another version. Export it again.")
        content.setdefault("reader", "SimpleITKIO")  # of all that was exported before 0.2
        content["normalization"] = tuple(Normalization(**channel) for channel in content["normalization"])
        for key in ("resample_image", "resample_logits"):
            content[key] = Resampling(**content[key])
        content["labels"] = [
            Label(name=label["name"], values=_tuple(label["values"])) for label in content.get("labels", ())
        ]
        if training := content.get("training"):
            content["training"] = Training(
                spacing=tuple(map(_tuple, training["spacing"])), orientations=_tuple(training["orientations"])
            )
        known = {field.name for field in fields(Description)}
        description = Description(**{name: _tuple(value) for name, value in content.items() if name in known})
        wrong = [what for what, holds in _checks(description).items() if not holds]
    except UserError:
        raise
    except Exception as error:  # a file from somebody else can hold anything in any place
        raise UserError(f"The description of preprocessing in {source} is damaged: {error!r:.200}") from error
    if wrong:
        raise UserError(f"The description of preprocessing in {source} is damaged: {', '.join(wrong)}")
    return description


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | Mapping) else value


def _checks(model: Description) -> dict[str, bool]:
    """Name -> whether the entries are what a model needs; values of other types raise errors of any kind."""
    dimension, heads = len(model.patch_size), model.heads
    order = model.regions_class_order
    return {
        "name": isinstance(model.name, str),
        "file_ending": re.fullmatch(r"(\.\w{1,10}){1,3}", model.file_ending) is not None,
        "reader": isinstance(model.reader, str),
        "transpose": sorted(model.transpose) == [0, 1, 2] and _are_counts(model.transpose),
        "patch_size": dimension in (2, 3) and _are_counts(model.patch_size, 1) and prod(model.patch_size) <= _VOXELS,
        "spacing": len(model.spacing) == dimension and all(1e-4 <= float(size) <= 1e4 for size in model.spacing),
        "normalization": 0 < len(model.normalization) <= _LABELS and all(map(_is_normalization, model.normalization)),
        "resampling": all(map(_is_resampling, (model.resample_image, model.resample_logits))),
        "heads": _are_counts([heads], 1) and heads <= _LABELS,
        "regions_class_order": order is None or (len(order) == heads and _are_counts(order) and max(order) <= _LABELS),
        "mirror_axes": model.mirror_axes is None
        or (_are_counts(model.mirror_axes) and _are_different(model.mirror_axes, dimension)),
        "channel_names": all(isinstance(name, str) for name in model.channel_names),
        "labels": all(isinstance(label.name, str) and _are_counts(label.values) for label in model.labels),
        "training": model.training is None or _is_training(model.training),
    }


def _are_counts(values: Sequence[Any], least: int = 0) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) and value >= least for value in values)


def _are_different(axes: Sequence[int], dimension: int) -> bool:
    return len({*axes}) == len(axes) and {*axes} <= {*range(dimension)}


def _is_normalization(how: Normalization) -> bool:
    numbers = (how.mean, how.std, how.lower, how.upper)
    return (
        isinstance(how.scheme, str)
        and isinstance(how.use_mask, bool)
        and all(abs(number) <= 1e30 for number in numbers)  # not NaN
        and how.lower <= how.upper
        and how.std >= 0
    )


def _is_resampling(how: Resampling) -> bool:
    orders = (how.order, how.order_z)
    return _are_counts(orders) and max(orders) <= 5 and how.force_separate_z in (None, True, False)


def _is_training(images: Training) -> bool:
    ranges = [(float(least), float(largest)) for least, largest in images.spacing]
    return (
        len(ranges) in (0, 3)
        and all(0 < least <= largest <= 1e4 for least, largest in ranges)
        and all(isinstance(orientation, str) for orientation in images.orientations)
    )
