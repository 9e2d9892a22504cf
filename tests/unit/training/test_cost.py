"""What is told before a training: seconds in words, memory, bytes of checkpoints."""

import pytest
import torch
from torch import nn

from nnunetv2_hlfd.training.cost import checkpoint_bytes, forward_pass, in_words, memory_in_words, training_step


@pytest.mark.parametrize(("seconds", "words"), [(3.21, "3.2 s"), (90, "1.5 min"), (9000, "2.5 h"), (500_000, "139 h")])
def test_durations_have_the_unit_that_fits(seconds, words):
    assert in_words(seconds) == words


def test_a_measured_step_trains_and_a_measured_pass_does_not():
    network, data = nn.Conv2d(1, 2, 3), torch.rand(2, 1, 8, 8)
    before = network.weight.detach().clone()
    forward_pass(network, data)()
    assert torch.equal(network.weight, before)
    training_step(network, data)()
    assert not torch.equal(network.weight, before)


def test_checkpoints_hold_the_weights_and_what_adam_knows_of_them(tmp_path):
    """The two files that nnU-Net leaves, but for their frame of a few kB."""
    network = nn.Linear(1000, 1000)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(1, 1000)).sum().backward()
    optimizer.step()
    torch.save({"weights": network.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "one.pth")
    assert checkpoint_bytes(network) == pytest.approx(2 * (tmp_path / "one.pth").stat().st_size, rel=0.01)


def test_memory_is_that_of_this_process():
    gigabytes = float(memory_in_words(torch.device("cpu")).removeprefix("Memory: about ").removesuffix(" GB"))
    assert 0.1 < gigabytes < 100
