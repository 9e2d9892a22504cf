"""What a network costs to store and to run, and how its training went: read from its checkpoint."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

from nnunetv2_hlfd.models.checkpoints import read_checkpoint
from nnunetv2_hlfd.networks.size import Size, measure_network
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.report.networks import find_checkpoint, restore
from nnunetv2_hlfd.utilities.timing import seconds_of_each

_CURVES = ("mean_fg_dice", "val_losses")
_PASSES = 7


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Size of the network, bytes of its checkpoint, seconds for one patch; None where not available, and why."""

    size: Size | None = None
    checkpoint_bytes: int | None = None
    latency: float | None = None
    missing: str | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values of each epoch: nnU-Net's pseudo Dice on validation patches, and its validation loss."""

    fold: int
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)


def measure_cost(model: Model) -> Cost:
    """Size and latency of a model's network: median of a few forward passes of one patch on this machine's CPU."""
    file = find_checkpoint(model, model.folds[0])
    if file is None:
        return Cost(missing="no checkpoint")
    bytes_ = file.stat().st_size
    try:
        restored = restore(model, model.folds[0])
    except ValueError as error:
        return Cost(checkpoint_bytes=bytes_, missing=str(error))
    network, configuration = restored.network, restored.configuration
    channels = determine_num_input_channels(restored.plans, configuration, dict(model.dataset_json))
    size = measure_network(network, configuration.patch_size, channels)
    latency = _latency(network, torch.zeros(1, channels, *configuration.patch_size))
    return Cost(size=size, checkpoint_bytes=bytes_, latency=latency)


def read_curves(model: Model, folds: Sequence[int]) -> list[Curve]:
    """Training curves of the folds that have a readable checkpoint."""
    curves = []
    for fold in folds:
        file = find_checkpoint(model, fold)
        if file is None:
            continue
        try:
            logging = read_checkpoint(file)["logging"]
            values = {name: [float(each) for each in logging[name]] for name in _CURVES}
        except (ValueError, KeyError, TypeError):
            continue
        curves.append(Curve(fold=fold, values=values))
    return curves


def machine() -> str:
    """Where latency was measured."""
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


@torch.no_grad()
def _latency(network: torch.nn.Module, patch: torch.Tensor) -> float:
    return float(np.median(seconds_of_each(lambda: network(patch), _PASSES)))
