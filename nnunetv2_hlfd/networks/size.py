"""How large a network is, and building one from its `architecture` block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, kw_only=True)
class Size:
    """Parameters (trainable) and multiply-accumulate operations of one forward pass of one patch."""

    parameters: int
    macs: int

    def __str__(self) -> str:
        return f"{self.parameters / 1e6:.3g} M parameters, {self.macs / 1e9:.3g} GMAC per patch"


def build_network(
    architecture: dict[str, Any],
    num_input_channels: int,
    num_heads: int,
    *,
    deep_supervision: bool = True,
    initialize: bool = True,
) -> nn.Module:
    """Build the network of an `architecture` block, with nnU-Net's own builder and, where asked, its first weights."""
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        num_input_channels,
        num_heads,
        allow_init=initialize,
        deep_supervision=deep_supervision,
    )


def measure_size(
    architecture: dict[str, Any], patch_size: Sequence[int], num_input_channels: int, num_heads: int
) -> Size:
    """Measure the network of an `architecture` block; nothing is allocated (meta device)."""
    with torch.device("meta"):
        network = build_network(architecture, num_input_channels, num_heads, deep_supervision=False, initialize=False)
    return measure_network(network, patch_size, num_input_channels)


def measure_network(network: nn.Module, patch_size: Sequence[int], num_input_channels: int) -> Size:
    """Size of a network on any device; for operations it is run once on one patch of zeros without gradient.

    Deep-supervision outputs are left out, as in prediction, where the network can switch them off.
    """
    device = next(network.parameters()).device
    with _without_deep_supervision(network), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, num_input_channels, *patch_size, device=device))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Size(parameters=parameters, macs=counter.get_total_flops() // 2)


@contextmanager
def _without_deep_supervision(network: nn.Module) -> Iterator[None]:
    """Switch deep supervision off for a while, in networks that have that switch: those of nnU-Net's planners."""
    decoder: Any = getattr(network, "decoder", None)
    supervised = getattr(decoder, "deep_supervision", None)
    if supervised is None:
        yield
        return
    decoder.deep_supervision = False
    try:
        yield
    finally:
        decoder.deep_supervision = supervised
