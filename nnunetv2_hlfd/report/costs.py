"""What a network costs to store and to run, and how its training went: read from its checkpoint."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from nnunetv2_hlfd.models.checkpoints import read_checkpoint
from nnunetv2_hlfd.networks.size import Size, measure_network
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.timing import seconds_of_each

_CURVES = ("mean_fg_dice", "val_losses")
_PASSES = 7


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What was measured of one network; None where it is not available.

    Attributes:
        size: Parameters and operations.
        checkpoint: Name of the file that was measured, after that of its fold.
        checkpoint_bytes: Size of that file.
        latency: Seconds for one patch.
        missing: Why something is not available.
    """

    size: Size | None = None
    checkpoint: str | None = None
    checkpoint_bytes: int | None = None
    latency: float | None = None
    missing: str | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How the training of a fold went.

    Attributes:
        values: of each epoch: nnU-Net's pseudo Dice on validation patches, and its validation loss.
        seconds: of all epochs; None where their times are not recorded.
        ended: time stamp of the end of the last epoch.
    """

    fold: int
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    seconds: float | None = None
    ended: float | None = None


def measure_cost(model: Model) -> Cost:
    """Size and latency of a model's network: median of a few forward passes of one patch on this machine's CPU."""
    file = model.checkpoints.get(model.folds[0])
    if file is None:
        return Cost(missing="no checkpoint")
    cost = Cost(checkpoint=f"{file.parent.name}/{file.name}", checkpoint_bytes=file.stat().st_size)
    try:
        network = model.folder.network(file)
        channels, *patch_size = model.folder.input_shape
    except UserError as error:
        return replace(cost, missing=str(error))
    size = measure_network(network, patch_size, channels)
    return replace(cost, size=size, latency=_latency(network, torch.zeros(1, channels, *patch_size)))


def read_curves(model: Model, folds: Sequence[int]) -> list[Curve]:
    """Training curves of the folds that have a readable checkpoint."""
    curves = []
    for fold in folds:
        if fold not in model.checkpoints:
            continue
        try:
            logging = read_checkpoint(model.checkpoints[fold], required=("logging",), optional=())["logging"]
            values = {name: [float(value) for value in logging[name]] for name in _CURVES}
        except (ValueError, KeyError, TypeError):
            continue
        seconds, ended = _times(logging)
        curves.append(Curve(fold=fold, values=values, seconds=seconds, ended=ended))
    return curves


def _times(logging: Mapping[str, Any]) -> tuple[float | None, float | None]:
    try:
        starts, ends = ([float(value) for value in logging[f"epoch_{name}_timestamps"]] for name in ("start", "end"))
    except (KeyError, TypeError, ValueError):
        return None, None
    return sum(end - start for start, end in zip(starts, ends, strict=False)), max(ends, default=None)


def machine() -> str:
    """Where latency was measured."""
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


@torch.no_grad()
def _latency(network: torch.nn.Module, patch: torch.Tensor) -> float:
    return float(np.median(seconds_of_each(lambda: network(patch), _PASSES)))
