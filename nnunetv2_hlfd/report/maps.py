"""What a network makes of a patch: Grad-CAM of its encoder's ends, attention and pixel maps of its early layers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nnunetv2_hlfd.distillation.taps import StudentTaps, read_stages, student_taps
from nnunetv2_hlfd.losses.attention import energy
from nnunetv2_hlfd.losses.divergence import probabilities
from nnunetv2_hlfd.models.checkpoints import read_checkpoint
from nnunetv2_hlfd.report.cam import grad_cam, predicted_region
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.report.patches import Patch
from nnunetv2_hlfd.report.target import Target
from nnunetv2_hlfd.settings.settings import PLANS_KEY, Settings
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage

CAM, ATTENTION, PIXEL = "Grad-CAM", "attention", "pixel map"
_HEAD = re.compile(r"(methods\.HLFD\w*\.heads\.(\d+))\.weight")


@dataclass(frozen=True, kw_only=True)
class LayerMap:
    """A map of one encoder stage: what it is (`kind`), the stage's role and total stride, values (*grid)."""

    kind: str
    stage: str
    stride: tuple[int, ...]
    values: Tensor


@dataclass(frozen=True, kw_only=True)
class Seen:
    """All maps of a network on a patch, and where it predicts the label (*patch_size)."""

    maps: list[LayerMap]
    prediction: Tensor


@dataclass(frozen=True, kw_only=True)
class TrainedFold:
    """What a training has left of a fold.

    Attributes:
        network: In inference.
        checkpoint: What this package has added to nnU-Net's checkpoint.
        record: Content of distillation.json.
        source: Named in messages.
    """

    network: Any
    checkpoint: Mapping[str, Any]
    record: Mapping[str, Any]
    source: str


def restore_fold(model: Model, fold: int) -> TrainedFold:
    """Read a fold of a model that has a checkpoint.

    Raises:
        UserError: for damaged files, or plans that do not fit the checkpoint.
    """
    file = model.checkpoints[fold]
    return TrainedFold(
        network=model.folder.network(file),
        checkpoint=read_checkpoint(file, required=(), optional=(PLANS_KEY,)).get(PLANS_KEY, {}),
        record=model.records.get(fold, {}),
        source=f"The checkpoint or the record of fold {fold} in {model.folder.path}",
    )


def has_stages(network: Any) -> bool:
    """Whether a network describes the stages of its encoder, of which maps can be shown."""
    try:
        read_stages(network)
    except UserError:
        return False
    return True


def see(trained: TrainedFold, patch: Patch, target: Target) -> Seen:
    """Run a network on a patch and keep its maps.

    The stages are those of HLFD's student: `early` is the first strided one, then up to three in the middle; of a
    teacher, too. Grad-CAM is missing where the network predicts the label nowhere: it has no target.

    Raises:
        UserError: for a network without such stages, or adapters that do not fit them.
    """
    network, device = trained.network, next(trained.network.parameters()).device
    stages = read_stages(network)
    taps = student_taps(stages)
    data = patch.data.to(device)
    with torch.no_grad():
        skips = network.encoder(data)
        region = predicted_region(network.decoder(skips), target.channel, target.regions)
    maps = []
    if region.any():
        cams = grad_cam(network, data, target.channel, region)
    else:
        cams = [torch.zeros_like(skip[:, 0]) for skip in skips]
    for stage, role in ((0, "first stage"), (len(stages) - 1, "last stage")):
        maps.append(LayerMap(kind=CAM, stage=role, stride=stages[stage].stride, values=cams[stage][0].cpu()))
    with refuse_damage(trained.source):
        pixel_maps = _pixel_maps(trained, taps, skips, target)
    for stage, role in _roles(taps).items():
        found = {ATTENTION: energy(skips[stage], skips[stage].shape[2:], Settings().attention_exponent)[0]}
        if stage in pixel_maps:
            found[PIXEL] = pixel_maps[stage]
        maps += [
            LayerMap(kind=kind, stage=role, stride=stages[stage].stride, values=values.cpu())
            for kind, values in found.items()
        ]
    return Seen(maps=maps, prediction=region[0].cpu())


def _roles(taps: StudentTaps) -> dict[int, str]:
    """Stage -> its role in words."""
    return {
        taps.early: "early stage",
        **{stage: f"middle stage {number}" for number, stage in enumerate(taps.mids, start=1)},
    }


def _pixel_maps(trained: TrainedFold, taps: StudentTaps, skips: Sequence[Tensor], target: Target) -> dict[int, Tensor]:
    """Stage -> probability of the label by HLFD's learned head on it; untrained heads (term of weight 0) are left out.

    A head is a 1x1 convolution in 2d or 3d.
    """
    weights = trained.record.get("method", {}).get("weights", {})
    adapters = trained.checkpoint.get("adapters", {})
    maps = {}
    for name in adapters:
        head = _HEAD.fullmatch(name)
        if head is None or not weights.get("upd" if int(head[2]) == taps.early else "ipd", 0) > 0:
            continue
        features = skips[int(head[2])]
        weight, bias = (adapters[f"{head[1]}.{part}"].to(features.device) for part in ("weight", "bias"))
        logits = torch.einsum("bc...,kc->bk...", features, weight.flatten(start_dim=1))
        logits = logits + bias.view(1, -1, *(1,) * (features.ndim - 2))
        maps[int(head[2])] = probabilities(logits, 1.0, target.regions)[0, target.channel]
    return maps
