"""Peaks of memory, measured where the system tells them."""

import subprocess
import sys

import pytest
import torch

from nnunetv2_hlfd.utilities.device import CPU
from nnunetv2_hlfd.utilities.memory import added_memory, peak_memory

MIB = 2**20


def test_the_peak_of_a_process_is_that_of_its_largest_moment_and_not_its_parents():
    """The parent here holds torch; the child measures 100 MiB that it has let go of, and no torch."""
    code = (
        "import sys\nfrom nnunetv2_hlfd.utilities.memory import peak_memory\nblock = bytearray(100 * 2**20)\n"
        "del block\nprint(peak_memory())\nassert 'torch' not in sys.modules"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    if output == "None":
        pytest.skip("this system does not tell the peak of a process")
    assert 100 * MIB < int(output) < 160 * MIB
    assert peak_memory() > int(output)


def test_what_a_call_adds_is_counted_and_what_was_there_before_is_not():
    before = torch.ones(50 * MIB // 4)
    added = added_memory(lambda: torch.ones(80 * MIB // 4), CPU)
    if added is None:
        pytest.skip("this system does not tell the peak of a call")
    assert 79 * MIB < added < 110 * MIB
    assert before.sum() > 0
    assert added_memory(lambda: None, CPU) < 5 * MIB


def test_a_device_that_does_not_tell_gives_none():
    assert added_memory(lambda: None, torch.device("mps")) is None
