"""What training and prediction take on this machine: steps measured on random data, memory, checkpoints on the disk."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nnunetv2_hlfd.utilities.memory import peak_memory

_CHECKPOINTS = 2  # best and final; latest is gone in the end
_BYTES = 3 * 4  # of a parameter in a checkpoint: the weight and Adam's two moments


def training_step(network: nn.Module, data: Tensor) -> Callable[[], None]:
    """A step of Adam on these images (B, C, *spatial), which takes the time and memory of a real one."""
    optimizer = torch.optim.Adam(network.parameters())

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(data.device.type, enabled=data.device.type == "cuda"):
            outputs = network(data)
        maps = outputs if isinstance(outputs, list | tuple) else [outputs]  # with deep supervision or without
        torch.stack([logits.float().square().mean() for logits in maps]).sum().backward()
        optimizer.step()

    return step


def forward_pass(network: nn.Module, data: Tensor) -> Callable[[], None]:
    """A pass without gradient: of a teacher, or of prediction."""

    @torch.inference_mode()
    def forward() -> None:
        with torch.autocast(data.device.type, enabled=data.device.type == "cuda"):
            network(data)

    return forward


def checkpoint_bytes(network: nn.Module) -> int:
    """Bytes of the checkpoints that a training of this network leaves."""
    return _CHECKPOINTS * _BYTES * sum(parameter.numel() for parameter in network.parameters())


def memory_in_words(device: torch.device) -> str:
    """How much memory this process has needed at most so far: that of the GPU, or its own."""
    if device.type == "cuda":
        return f"GPU memory: about {torch.cuda.max_memory_allocated(device) / 1e9:.2g} GB"
    peak = peak_memory()
    return "Memory: not known on this system" if peak is None else f"Memory: about {peak / 1e9:.2g} GB"


def in_words(seconds: float) -> str:
    """Seconds in the unit that fits, as in 2.5 h."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}" if seconds < 100 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s"
