"""Measuring how long something takes."""

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from nnunetv2_hlfd.utilities.device import CPU, synchronize


def seconds_of(call: Callable[[], object], device: torch.device = CPU) -> float:
    """Measure the seconds of one call, with the work that it leaves to the device."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def seconds_of_each(call: Callable[[], object], repeats: int, device: torch.device = CPU) -> NDArray[np.float64]:
    """Measure the seconds (repeats,) of a call that is made again and again, after a first one that is not counted."""
    call()
    return np.array([seconds_of(call, device) for _ in range(repeats)])
