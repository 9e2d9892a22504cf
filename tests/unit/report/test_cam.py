"""Grad-CAM by captum against its definition, written out on tiny networks."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunetv2_hlfd.networks.unet_plus_plus import UNetPlusPlus
from nnunetv2_hlfd.report.cam import grad_cam, predicted_region


class Encoder(nn.Module):
    """Two stages; the second sees the first, so the first's gradient comes by two ways."""

    def __init__(self, conv):
        super().__init__()
        self.stages = nn.ModuleList([conv(1, 3, 3, padding=1), conv(3, 4, 2, stride=2)])

    def forward(self, data):
        skips = []
        for stage in self.stages:
            data = torch.tanh(stage(data))
            skips.append(data)
        return skips


class Decoder(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.up, self.out = nn.Upsample(scale_factor=2), conv(7, 3, 1)

    def forward(self, skips):
        return self.out(torch.cat([skips[0], self.up(skips[1])], dim=1).square())


class Network(nn.Module):
    def __init__(self, dimension):
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dimension]
        self.encoder, self.decoder = Encoder(conv), Decoder(conv)
        self.requires_grad_(False)


def scene(dimension):
    torch.manual_seed(dimension)
    network, data = Network(dimension), torch.randn(1, 1, *(6,) * dimension)
    region = torch.rand(1, *(6,) * dimension) > 0.5
    return network, data, region


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("channel", [0, 2])
def test_every_stages_map_is_the_relu_of_its_channels_weighted_by_their_mean_gradients(dimension, channel):
    network, data, region = scene(dimension)
    first = torch.tanh(network.encoder.stages[0](data)).requires_grad_()
    second = torch.tanh(network.encoder.stages[1](first))
    second.retain_grad()
    network.decoder([first, second])[:, channel][region].sum().backward()
    maps = grad_cam(network, data, channel, region)
    for found, stage in zip(maps, (first, second), strict=True):
        expected = torch.zeros(stage.shape[2:])
        for activation, gradient in zip(stage[0].detach(), stage.grad[0], strict=True):
            expected += gradient.mean() * activation
        assert found.shape == (1, *stage.shape[2:])
        assert torch.allclose(found[0], expected.clamp_min(0), atol=1e-5)
    assert any(each.max() > 0 for each in maps)


def build(kind, dimension):
    """Networks as nnU-Net builds them, whose activations are in place."""
    conv, norm = {2: (nn.Conv2d, nn.InstanceNorm2d), 3: (nn.Conv3d, nn.InstanceNorm3d)}[dimension]
    arguments = {
        "input_channels": 1,
        "n_stages": 3,
        "features_per_stage": (4, 6, 8),
        "conv_op": conv,
        "kernel_sizes": 3,
        "strides": (1, 2, 2),
        "num_classes": 2,
        "conv_bias": True,
        "norm_op": norm,
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": False,
    }
    if kind is not UNetPlusPlus:
        blocks = "n_blocks_per_stage" if kind is ResidualEncoderUNet else "n_conv_per_stage"
        arguments |= {blocks: (1, 1, 1), "n_conv_per_stage_decoder": (1, 1)}
    return kind(**arguments).eval().requires_grad_(False)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("kind", [PlainConvUNet, ResidualEncoderUNet, UNetPlusPlus])
def test_every_kind_of_network_gives_the_maps_of_hooks_on_its_stages(kind, dimension):
    torch.manual_seed(0)
    network, data = build(kind, dimension), torch.randn(1, 1, *(8,) * dimension)
    region = torch.rand(1, *(8,) * dimension) > 0.5
    found, kept = grad_cam(network, data, 1, region), []
    for stage in network.encoder.stages:
        stage.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    logits = network(data.clone().requires_grad_())
    for output in kept:
        output.retain_grad()
    logits[0, 1][region[0]].sum().backward()
    assert len(found) == len(kept) == 3
    for each, stage in zip(found, kept, strict=True):
        weights = stage.grad.flatten(start_dim=2).mean(dim=2)[0]
        assert torch.allclose(each[0], torch.tensordot(weights, stage.detach()[0], dims=1).clamp_min(0), atol=1e-6)


def test_the_region_decides_which_logits_are_explained():
    network, data, region = scene(2)
    one, other = grad_cam(network, data, 1, region), grad_cam(network, data, 1, ~region)
    assert not torch.allclose(one[0], other[0])


def test_a_label_is_predicted_where_its_logit_is_the_largest_a_region_where_it_is_positive():
    logits = torch.tensor([[[-1.0, 3.0, 1.0]], [[-2.0, 2.0, 2.0]]])[None]
    assert predicted_region(logits, 1, regions=False).tolist() == [[[False, False, True]]]
    assert predicted_region(logits, 1, regions=True).tolist() == [[[False, True, True]]]
