"""Grad-CAM of the encoder's stages for one label: Seg-Grad-CAM (Vinogradova, Dibrov, Myers; AAAI 2020), by captum.

Its target is the label's logit summed over the region in which the network predicts the label.
"""

from typing import Any

import torch
from torch import Tensor, nn


class _Skips(nn.Module):
    """An encoder whose maps come as a tuple, which captum can hook."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, data: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.encoder(data))


class _Score(nn.Module):
    """A channel's logits summed over a region."""

    def __init__(self, network: Any, channel: int) -> None:
        super().__init__()
        self.skips, self.decoder, self.channel = _Skips(network.encoder), network.decoder, channel

    def forward(self, data: Tensor, region: Tensor) -> Tensor:
        logits = self.decoder(list(self.skips(data)))[:, self.channel]
        return (logits * region).flatten(start_dim=1).sum(dim=1)


def grad_cam(network: Any, data: Tensor, channel: int, region: Tensor) -> list[Tensor]:
    """Grad-CAM of every encoder stage: ReLU(sum_k w_k z_k), w_k the spatial mean of d score / d z_k.

    Args:
        network: with an `encoder` that returns the maps of its stages and a `decoder` that returns logits
            (B, C, *spatial), full resolution.
        data: (B, C_in, *spatial).
        channel: of the logits.
        region: (B, *spatial), over which the logits are summed; not empty.

    Returns:
        Maps (B, *grid of the stage), highest resolution first.
    """
    from captum.attr import LayerGradCam

    score = _Score(network, channel)
    data = data.detach().requires_grad_()  # the weights are frozen: the graph starts here
    maps = LayerGradCam(score, score.skips).attribute(data, additional_forward_args=region, relu_attributions=True)
    maps = maps if isinstance(maps, tuple) else (maps,)
    return [values[:, 0].detach() for values in maps]


def predicted_region(logits: Tensor, channel: int, regions: bool) -> Tensor:
    """Where a network predicts a label: its channel is the largest (labels) or its probability is above 0.5 (regions).

    Args:
        logits: (B, C, *spatial).
        channel: of the label or region.
        regions: whether channels are regions, which overlap.

    Returns:
        (B, *spatial), bool.
    """
    return logits[:, channel] > 0 if regions else torch.argmax(logits, dim=1) == channel
