"""UNet++ against a forward pass written from the paper's node equations, and its size at the paper's widths."""

import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn
from torch.nn import functional

from nnunetv2_hlfd.distillation.taps import read_stages, trained_heads
from nnunetv2_hlfd.networks.unet_plus_plus import UNetPlusPlus
from nnunetv2_hlfd.training.unet_plus_plus_trainer import nnUNetTrainerUNetPlusPlus

FLAT = {
    "conv_op": nn.Conv2d,
    "norm_op": nn.InstanceNorm2d,
    "strides": [[1, 1], [2, 2], [2, 1], [2, 2]],
    "kernel_sizes": [[3, 3], [3, 3], [3, 1], [3, 3]],
}
SOLID = {
    "conv_op": nn.Conv3d,
    "norm_op": nn.InstanceNorm3d,
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "kernel_sizes": [[1, 3, 3], [1, 3, 3], [3, 3, 3]],
}
KINDS = [pytest.param(FLAT, (2, 3, 16, 12), id="2d"), pytest.param(SOLID, (2, 3, 4, 12, 8), id="3d-anisotropic")]


def build(kind, *, deep_supervision=False, widths=None):
    stages = len(kind["strides"])
    torch.manual_seed(0)
    return UNetPlusPlus(
        3,
        5,
        n_stages=stages,
        features_per_stage=widths or [4 + 2 * level for level in range(stages)],
        conv_bias=True,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
        **kind,
    ).eval()


def reference(weights, kind, image, levels):
    """Logits of every level from the node equations, with the weights of the network, highest resolution first."""
    dimension = image.ndim - 2
    convolve = {2: functional.conv2d, 3: functional.conv3d}[dimension]
    pool = {2: functional.max_pool2d, 3: functional.max_pool3d}[dimension]
    mode = {2: "bilinear", 3: "trilinear"}[dimension]

    def two_convolutions(x, name, level):
        for number in (0, 1):
            prefix = f"{name}.convs.{number}"
            padding = [(size - 1) // 2 for size in kind["kernel_sizes"][level]]
            x = convolve(x, weights[f"{prefix}.conv.weight"], weights[f"{prefix}.conv.bias"], padding=padding)
            mean = x.mean(dim=list(range(2, x.ndim)), keepdim=True)
            variance = x.var(dim=list(range(2, x.ndim)), keepdim=True, correction=0)
            shape = (1, -1, *(1,) * dimension)
            scale, shift = (weights[f"{prefix}.norm.{each}"].view(shape) for each in ("weight", "bias"))
            x = (x - mean) / (variance + 1e-5).sqrt() * scale + shift
            x = torch.where(x > 0, x, 0.01 * x)
        return x

    nodes = {}
    x = image
    for level in range(levels):
        if max(kind["strides"][level]) > 1:
            x = pool(x, kind["strides"][level])
        block = 1 if max(kind["strides"][level]) > 1 else 0  # the pooling comes first in the stage
        x = nodes[level, 0] = two_convolutions(x, f"encoder.stages.{level}.{block}", level)
    last = levels - 1
    for j in range(1, last + 1):
        for i in range(last + 1 - j):
            size = nodes[i, 0].shape[2:]
            up = functional.interpolate(nodes[i + 1, j - 1], size=size, mode=mode, align_corners=False)
            inputs = torch.cat([*(nodes[i, k] for k in range(j)), up], dim=1)
            nodes[i, j] = two_convolutions(inputs, f"decoder.nodes.{i}_{j}", i)
    outputs = []
    for i in range(last):
        layer = f"decoder.seg_layers.{last - 1 - i}"
        outputs.append(convolve(nodes[i, last - i], weights[f"{layer}.weight"], weights[f"{layer}.bias"]))
    return outputs


@pytest.mark.parametrize(("kind", "shape"), KINDS)
def test_forward_equals_the_node_equations(kind, shape):
    network, image = build(kind, deep_supervision=True), torch.randn(shape)
    with torch.no_grad():
        expected = reference(dict(network.named_parameters()), kind, image, len(kind["strides"]))
        computed = network(image)
        assert len(computed) == len(expected) == len(kind["strides"]) - 1
        for one, other in zip(computed, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        network.decoder.deep_supervision = False
        torch.testing.assert_close(network(image), expected[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "shape"), KINDS)
def test_outputs_have_the_sizes_of_nnunets_deep_supervision(kind, shape):
    network = build(kind, deep_supervision=True)
    stages = read_stages(network)
    sizes = [tuple(each.shape[2:]) for each in network(torch.randn(shape))]
    assert sizes == [stage.size(shape[2:]) for stage in stages[:-1]]


@pytest.mark.parametrize(("kind", "shape"), KINDS)
def test_every_parameter_gets_a_gradient(kind, shape):
    network = build(kind, deep_supervision=True)
    sum(each.square().mean() for each in network(torch.randn(shape))).backward()
    for name, value in network.named_parameters():
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name


def test_parameters_at_the_papers_widths():
    """The HLFD paper gives 36.1 M for its teacher."""
    kind = {**FLAT, "strides": [[1, 1], *[[2, 2]] * 4], "kernel_sizes": [[3, 3]] * 5}
    network = build(kind, widths=[64, 128, 256, 512, 1024])
    assert sum(each.numel() for each in network.parameters()) / 1e6 == pytest.approx(36.6, abs=0.1)


def test_number_of_nodes_follows_the_stages():
    for stages in (2, 3, 5, 7):
        kind = {**FLAT, "strides": [[1, 1], *[[2, 2]] * (stages - 1)], "kernel_sizes": [[3, 3]] * stages}
        network = build(kind)
        assert len(network.decoder.nodes) == stages * (stages - 1) / 2
        assert len(network.decoder.seg_layers) == stages - 1


def plans(block):
    """Plans of one 2d configuration with this `architecture` block."""
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 4,
            "features_per_stage": [4, 8, 8, 8],
            "conv_op": "torch.nn.modules.conv.Conv2d",
            "kernel_sizes": [[3, 3]] * 4,
            "strides": [[1, 1], *[[2, 2]] * 3],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
            "norm_op_kwargs": {"affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
            **block,
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    return PlansManager({"plans_name": "any", "configurations": {"2d": {"architecture": architecture}}})


@pytest.mark.parametrize(
    "block",
    [
        {"n_conv_per_stage": [2] * 4, "n_conv_per_stage_decoder": [2] * 3},
        {"n_blocks_per_stage": [1, 3, 4, 6], "n_conv_per_stage_decoder": [1] * 3},
    ],
    ids=["default", "ResEnc"],
)
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_the_trainer_builds_it_from_default_and_residual_encoder_plans(block, deep_supervision):
    manager = plans(block)
    network = nnUNetTrainerUNetPlusPlus.build_network_architecture(
        manager, manager.get_configuration("2d"), 1, 3, deep_supervision
    )
    assert isinstance(network, UNetPlusPlus)
    assert network.decoder.deep_supervision == deep_supervision
    assert [stage.channels for stage in read_stages(network)] == [4, 8, 8, 8]
    assert trained_heads(network) == (), "biases start at 0, so that untrained outputs are told"
