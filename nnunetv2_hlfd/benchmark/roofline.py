"""How far a network is from what the processor can do: the larger of its arithmetic and its memory traffic."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_hlfd.utilities.timing import seconds_of_each

_REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """Work of one forward pass, and the least seconds that it can take on this machine.

    Attributes:
        flops: floating-point operations, two for each multiply-add.
        bytes_moved: inputs, outputs and weights of every layer, once each.
        seconds: the larger of flops over the measured peak and bytes over the measured bandwidth.
    """

    flops: int
    bytes_moved: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What this machine can do at most, measured as the best of a few runs."""

    flops_per_second: float  # of a convolution with many channels, float32
    bytes_per_second: float  # of copying memory, read and write counted

    @classmethod
    def measure(cls, dimensions: int) -> "Machine":
        """Measure a 3x3(x3) convolution of 256 channels and a copy of 256 MiB."""
        size = [64, 64] if dimensions == 2 else [12, 32, 32]
        layer = (nn.Conv2d if dimensions == 2 else nn.Conv3d)(256, 256, 3, padding=1).requires_grad_(False)
        image = torch.randn(1, 256, *size)
        with FlopCounterMode(display=False) as counter:
            layer(image)
        source = np.ones(2**25, np.float64)
        target = np.empty_like(source)
        return cls(
            flops_per_second=counter.get_total_flops() / best_seconds(layer, image),
            bytes_per_second=2 * source.nbytes / best_seconds(np.copyto, target, source),
        )


@torch.no_grad()
def roofline(network: nn.Module, image: torch.Tensor, machine: Machine) -> Roofline:
    """Count a forward pass of a batch (B, C, *patch) and bound its time."""
    moved = 0

    def count(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal moved
        values = (*inputs, output, *layer.parameters(recurse=False))
        moved += sum(value.numel() * value.element_size() for value in values if isinstance(value, torch.Tensor))

    hooks = [module.register_forward_hook(count) for module in network.modules() if not list(module.children())]
    with FlopCounterMode(display=False) as counter:
        network(image)
    for hook in hooks:
        hook.remove()
    flops = counter.get_total_flops()
    seconds = max(flops / machine.flops_per_second, moved / machine.bytes_per_second)
    return Roofline(flops=flops, bytes_moved=moved, seconds=seconds)


@torch.inference_mode()
def best_seconds(run: Callable[..., object], *arguments: object) -> float:
    """Measure the seconds of the quickest of a few calls, after one that is not counted."""
    return float(seconds_of_each(lambda: run(*arguments), _REPEATS).min())
