"""The device that networks run on."""

import os
import platform
from pathlib import Path

import torch

from nnunetv2_hlfd.utilities.errors import UserError

CPU = torch.device("cpu")


def choose_device(name: str) -> torch.device:
    """Return the device of a name on the command line.

    Args:
        name: cpu, cuda or mps.

    Raises:
        UserError: for another name, or a device that PyTorch does not find here.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name not in available:
        raise UserError(f"Expected one of {', '.join(available)} for -device, got '{name}'.")
    if not available[name]:
        raise UserError(f"PyTorch finds no GPU for -device {name}. Choose -device cpu.")
    return torch.device(name)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def processor_name() -> str:
    """Name the processor and its number of cores, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
