"""Measuring how much memory something takes, on systems that tell."""

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")  # writing 5 resets the peak of the resident memory


def peak_memory() -> int | None:
    """Return the bytes of resident memory that this process has had at most; None where the system does not tell."""
    if _STATUS.is_file():  # Linux hands the parent's peak on in getrusage
        return _resident("VmHWM")
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def added_memory(call: Callable[[], object], device: "torch.device") -> int | None:
    """Measure the bytes that a call adds at its peak, above what is loaded before.

    They are those of the GPU's memory, or on the CPU of the process's resident memory.

    Returns:
        None for a device or system that does not tell: mps, and every system but Linux with glibc.
    """
    if device.type == "cuda":
        import torch  # not above: importing it would count as memory of a process that does without

        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    libc: Any = ctypes.CDLL(None) if device.type == "cpu" and _CLEAR.exists() else None
    if not hasattr(libc, "malloc_trim"):
        return None
    gc.collect()
    libc.malloc_trim(0)  # what earlier calls have freed is still resident and would hide the need of this one
    _CLEAR.write_text("5")
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def _resident(key: str) -> int:
    """Read an entry of /proc/self/status, which has kB, in bytes."""
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
