"""Prediction of everything that is stored of a teacher: its final logits and, beside them, its other maps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunetv2_hlfd.deploy.predictor import Predictor
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.distillation.requests import MapRequest
from nnunetv2_hlfd.losses.attention import unified_energy
from nnunetv2_hlfd.teacher.checkpoint import TeacherCheckpoint


class MapsPredictor(Predictor):
    """A predictor of one of a teacher's networks, whose tiles carry more channels than the final logits.

    Args:
        checkpoint: of the network.
        requests: the other maps.
        regions: nnU-Net's region-based training.
        device: of the network.
        options: of `Predictor`.
    """

    def __init__(
        self,
        checkpoint: TeacherCheckpoint,
        requests: Sequence[MapRequest],
        regions: bool,
        *,
        device: torch.device,
        **options: Any,
    ) -> None:
        fold = checkpoint.file.parent.name.removeprefix("fold_")
        super().__init__(checkpoint.model.path, folds=[fold], checkpoint=checkpoint.file.name, device=device, **options)
        if requests:
            network = checkpoint.model.network(checkpoint.file, deep_supervision=True).to(device)
            self.runs = [_AllMaps(network, requests, regions)]
            self.channels += sum(request.channels(self.channels) for request in requests)


class _AllMaps(nn.Module):
    """Final logits, and the requests' maps on the grid of the image, as channels (B, C, *spatial)."""

    def __init__(self, network: nn.Module, requests: Sequence[MapRequest], regions: bool) -> None:
        super().__init__()
        self.network, self.requests, self.regions = network, list(requests), regions
        self.decoder_maps = any(request.source == "decoder" for request in requests)

    def forward(self, data: Tensor) -> Tensor:
        outputs = Outputs.of(self.network, data, decoder_maps=self.decoder_maps)
        size = list(data.shape[2:])
        maps = [functional.interpolate(self._map(outputs, request), size) for request in self.requests]
        return torch.cat([outputs.logits[0].float(), *maps], dim=1)

    def _map(self, outputs: Outputs, request: MapRequest) -> Tensor:
        """Probabilities (B, C, *grid), or the root M_p^(1/p) of an energy (B, 1, *grid)."""
        if request.kind == "heads":
            teacher = TeacherOutputs(networks=[outputs])
            return teacher.unified_probabilities(request.indices, request.parameter, self.regions)
        features = [outputs.stage_map(stage, request.source) for stage in request.indices]
        return unified_energy(features, request.parameter).pow(1 / request.parameter).unsqueeze(1)
