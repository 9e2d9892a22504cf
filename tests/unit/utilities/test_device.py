"""Choosing the device by name."""

import pytest
import torch

from nnunetv2_hlfd.utilities.device import choose_device, synchronize
from nnunetv2_hlfd.utilities.errors import UserError

AVAILABLE = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


def test_the_processor_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", AVAILABLE)
def test_a_gpu_is_chosen_where_there_is_one_and_refused_where_not(name):
    if AVAILABLE[name]:
        assert choose_device(name).type == name
        synchronize(choose_device(name))
    else:
        with pytest.raises(UserError, match=rf"^PyTorch finds no GPU for -device {name}\. Choose -device cpu\.$"):
            choose_device(name)


def test_another_name_is_refused():
    with pytest.raises(UserError, match=r"^Expected one of cpu, cuda, mps for -device, got 'gpu'\.$"):
        choose_device("gpu")
