"""Size of a network: parameters and operations of one forward pass, whatever the network is made of."""

import pytest
import torch
from architectures import architecture
from dynamic_network_architectures.architectures.primus import Primus
from torch import nn

from nnunetv2_hlfd.networks.size import build_network, measure_network, measure_size


@pytest.mark.parametrize("deep_supervision", [True, False])
def test_deep_supervision_is_left_out_and_stays_as_it_was(deep_supervision):
    block = architecture("2d", 4, features=[4, 8, 8, 8])
    network = build_network(block, 1, 3, deep_supervision=deep_supervision)
    assert measure_network(network, [32, 32], 1) == measure_size(block, [32, 32], 1, 3)
    assert network.decoder.deep_supervision is deep_supervision


class Listing(nn.Module):
    """A 3x3 convolution to 4 channels, then a 1x1 one to 2; returns a list."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1, bias=False)

    def forward(self, image):
        features = self.first(image)
        return [self.last(features), features]


def test_a_network_without_decoder_is_measured():
    size = measure_network(Listing(), [8, 16], 3)
    assert size.parameters == (3 * 4 * 9 + 4) + 4 * 2
    assert size.macs == 8 * 16 * (3 * 4 * 9 + 4 * 2)


def test_nnunets_transformer_is_measured():
    network = Primus(1, 24, (8, 8, 8), 3, eva_depth=1, eva_numheads=2, input_shape=(16, 16, 16)).eval()
    assert not hasattr(network, "decoder")
    size = measure_network(network, [16, 16, 16], 1)
    assert size.parameters == sum(weight.numel() for weight in network.parameters())
    patch_embedding = 8 * 24 * 8**3  # each of 2 x 2 x 2 tokens sees its voxels once
    assert size.macs > patch_embedding
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 3, 16, 16, 16)
