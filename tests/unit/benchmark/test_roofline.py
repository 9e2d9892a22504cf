"""Work and traffic of a network, and the bound that a machine sets."""

import pytest
import torch
from torch import nn

from nnunetv2_hlfd.benchmark.roofline import Machine, best_seconds, roofline

CONVOLUTION = nn.Conv2d(4, 8, 3, padding=1, bias=False)
IMAGE = torch.zeros(2, 4, 16, 16)
FLOPS = 2 * 2 * 8 * 16 * 16 * 4 * 9  # two for each multiply-add; batch, outputs, pixels, inputs, kernel
BYTES = 4 * (2 * 4 * 16 * 16 + 2 * 8 * 16 * 16 + 8 * 4 * 9)


@pytest.mark.parametrize(
    ("machine", "seconds"),
    [
        (Machine(flops_per_second=1e6, bytes_per_second=1e12), FLOPS / 1e6),
        (Machine(flops_per_second=1e15, bytes_per_second=1e3), BYTES / 1e3),
    ],
    ids=["bound by arithmetic", "bound by memory"],
)
def test_the_larger_of_arithmetic_and_traffic_bounds_the_time(machine, seconds):
    bound = roofline(CONVOLUTION, IMAGE, machine)
    assert (bound.flops, bound.bytes_moved) == (FLOPS, BYTES)
    assert bound.seconds == pytest.approx(seconds)


def test_every_layer_of_a_network_is_counted_once_and_hooks_are_taken_off():
    network = nn.Sequential(CONVOLUTION, nn.ReLU())
    machine = Machine(flops_per_second=1.0, bytes_per_second=1.0)
    bound = roofline(network, IMAGE, machine)
    assert bound.flops == FLOPS
    assert bound.bytes_moved == BYTES + 4 * 2 * 2 * 8 * 16 * 16
    assert roofline(network, IMAGE, machine) == bound
    assert not any(layer._forward_hooks for layer in network.modules())


def test_a_machine_is_measured():
    machine = Machine.measure(2)
    assert machine.flops_per_second > 1e8
    assert machine.bytes_per_second > 1e8


def test_the_best_of_several_calls_is_taken():
    calls = []
    assert best_seconds(calls.append, 1) >= 0
    assert len(calls) == 6
