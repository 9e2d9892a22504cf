"""What a network file says about itself: how its images are prepared and what its outputs mean."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from .errors import UserError

KEY = "nnunet"  # of the metadata in ONNX and OpenVINO files
FORMAT = 1


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
        if content.pop("format") != FORMAT:
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
        return Description(**{name: _tuple(value) for name, value in content.items() if name in known})
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise UserError(f"The description of preprocessing in {source} is damaged: {error!r:.200}") from error


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | Mapping) else value
