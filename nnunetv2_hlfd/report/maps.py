"""What a network makes of a patch: Grad-CAM of its encoder's ends, attention and pixel maps of its early layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nnunetv2_hlfd.distillation.method import Task
from nnunetv2_hlfd.distillation.restore import restore_method
from nnunetv2_hlfd.distillation.taps import Stage, StudentTaps, read_stages, student_taps
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
        num_heads: Channels of the network's logits.
        source: Named in messages.
    """

    network: Any
    checkpoint: Mapping[str, Any]
    num_heads: int
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
        num_heads=model.folder.plans.get_label_manager(model.folder.dataset_json).num_segmentation_heads,
        source=f"The checkpoint of fold {fold} in {model.folder.path}",
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
        pixel_maps = _pixel_maps(trained, stages, skips, target)
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


def _pixel_maps(
    trained: TrainedFold, stages: Sequence[Stage], skips: Sequence[Tensor], target: Target
) -> dict[int, Tensor]:
    """Stage -> probability of the label by the method's learned head on it; untrained heads are left out."""
    task = Task(num_heads=trained.num_heads, regions=target.regions, dimension=skips[0].ndim - 2)
    method = restore_method(trained.checkpoint, stages, task)
    if method is None:
        return {}
    pixel_maps = method.to(skips[0].device).pixel_maps(skips)
    return {
        pixel_map.stage: probabilities(pixel_map.logits, 1.0, target.regions)[0, target.channel]
        for pixel_map in pixel_maps
    }
