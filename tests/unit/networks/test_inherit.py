"""A student that starts from every d-th channel of its teacher."""

import random
import re
from copy import deepcopy

import numpy as np
import pytest
import torch
from architectures import PLAIN, RESIDUAL, architecture, patch_for
from helpers import assert_same
from torch import nn

from nnunetv2_hlfd.networks.choice import student_architecture
from nnunetv2_hlfd.networks.inherit import inherit_weights
from nnunetv2_hlfd.networks.size import build_network

CHANNELS, HEADS, STAGES = 2, 3, 4
SMALL = [4, 6, 8, 8]
NAMES = [PLAIN, RESIDUAL]
KINDS = ["2d", "anisotropic"]


def build(kind="2d", *, name=PLAIN, features=SMALL, channels=CHANNELS, heads=HEADS, stages=STAGES, seed=0, **kwargs):
    """A network of random weights everywhere (nnU-Net's residual blocks start as identities)."""
    block = architecture(kind, stages, name=name, features=features[:stages])
    block["arch_kwargs"].update(kwargs)
    network = build_network(block, channels, heads)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return network.eval()


def repeat_channels(small, large):
    """Give the large network the small one's channels, each d times in a row, so that it computes the same.

    Axis 1 of a weight is summed over (axis 0 of a transposed convolution's): its entries are divided among the copies.
    """
    modules = dict(small.named_modules())
    with torch.no_grad():
        for name, module in large.named_modules():
            for key, value in module.named_parameters(recurse=False):
                source = getattr(modules[name], key)
                summed = 0 if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d) else 1
                for axis in range(min(source.ndim, 2)):
                    copies = value.shape[axis] // source.shape[axis]
                    source = source.repeat_interleave(copies, dim=axis)
                    if value.ndim > 1 and axis == summed:
                        source = source / copies
                value.copy_(source)


def image(kind, channels=CHANNELS):
    return torch.randn(2, channels, *patch_for(kind, STAGES), generator=torch.Generator().manual_seed(9))


def logits(network, kind):
    with torch.no_grad():
        return network(image(kind))


@pytest.mark.parametrize("divisor", [2, 4, 8])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_of_d_equal_copies_gives_the_small_network_exactly(name, kind, divisor):
    small = build(kind, name=name)
    teacher = build(kind, name=name, features=[divisor * count for count in SMALL], seed=1)
    repeat_channels(small, teacher)
    for wide, narrow in zip(logits(teacher, kind), logits(small, kind), strict=True):
        torch.testing.assert_close(wide, narrow, rtol=1e-3, atol=1e-4)  # the teacher does compute the same
    student = build(kind, name=name, seed=2)
    inherit_weights(student, teacher, f"unet_w{divisor}")
    assert_same(student.state_dict(), small.state_dict())
    assert_same(logits(student, kind), logits(small, kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_student_as_wide_as_its_teacher_is_the_teacher(name, kind):
    teacher, student = build(kind, name=name), build(kind, name=name, seed=1)
    inherit_weights(student, teacher, "plans")
    assert_same(student.state_dict(), teacher.state_dict())
    assert_same(logits(student, kind), logits(teacher, kind))


@pytest.mark.parametrize("choice", ["unet_w2", "unet_w4", "unet_w8"])
@pytest.mark.parametrize("name", NAMES)
def test_students_as_the_setting_makes_them_of_nnunets_plans(name, choice):
    plans = architecture("2d", 6, name=name)
    student_plans = student_architecture(plans, choice, patch_for("2d", 6), CHANNELS, HEADS)
    teacher, student = (build_network(block, CHANNELS, HEADS) for block in (plans, student_plans))
    inherit_weights(student, teacher, choice)
    divisor = int(choice.removeprefix("unet_w"))
    for network in (student, teacher):
        assert network.decoder.transpconvs[0].weight.isfinite().all()
    torch.testing.assert_close(
        student.decoder.transpconvs[1].weight,
        divisor * teacher.decoder.transpconvs[1].weight[::divisor, ::divisor],
        rtol=0,
        atol=0,
    )


def test_every_kind_of_layer_takes_its_own_channels_and_factor():
    """The first convolution keeps its inputs, the segmentation layer its outputs; axis 0 of a transposed one is in.

    Stage 1 is a quarter as wide as the teacher's, the others are half as wide.
    """
    teacher = build(features=[8, 24, 16, 16], norm_op="torch.nn.BatchNorm2d", seed=1)
    teacher.encoder.stages[0][0].convs[0].norm.running_mean.normal_()
    teacher.encoder.stages[0][0].convs[0].norm.num_batches_tracked.fill_(7)
    student = build(norm_op="torch.nn.BatchNorm2d")
    inherit_weights(student, teacher, "unet_w2")
    first, teacher_first = (network.encoder.stages[0][0].convs[0] for network in (student, teacher))
    assert torch.equal(first.conv.weight, teacher_first.conv.weight[::2])
    assert torch.equal(first.conv.bias, teacher_first.conv.bias[::2])
    assert torch.equal(first.norm.weight, teacher_first.norm.weight[::2])
    assert torch.equal(first.norm.running_mean, teacher_first.norm.running_mean[::2])
    assert first.norm.num_batches_tracked == 7
    second, teacher_second = (network.encoder.stages[1][0].convs[0].conv for network in (student, teacher))
    assert torch.equal(second.weight, 2 * teacher_second.weight[::4, ::2])
    up, teacher_up = (network.decoder.transpconvs[2] for network in (student, teacher))
    assert (up.weight.shape[:2], teacher_up.weight.shape[:2]) == ((6, 4), (24, 8))
    assert torch.equal(up.weight, 4 * teacher_up.weight[::4, ::2])
    joined, teacher_joined = (network.decoder.stages[2].convs[0].conv for network in (student, teacher))
    assert torch.equal(joined.weight[:, :4], 2 * teacher_joined.weight[::2, :8:2])  # upsampled half
    assert torch.equal(joined.weight[:, 4:], 2 * teacher_joined.weight[::2, 8::2])  # skip
    heads = zip(student.decoder.seg_layers, teacher.decoder.seg_layers, (2, 4, 2), strict=True)
    for head, teacher_head, step in heads:
        assert torch.equal(head.weight, step * teacher_head.weight[:, ::step])
        assert torch.equal(head.bias, teacher_head.bias)


def test_linear_layers_and_group_norms_inherit_too():
    def network(width):
        return nn.Sequential(nn.Conv2d(2, width, 1), nn.GroupNorm(2, width), nn.Linear(width, width))

    teacher, student = network(8), network(4)
    nn.init.normal_(teacher[1].weight)
    inherit_weights(student, teacher, "unet_w2")
    assert torch.equal(student[1].weight, teacher[1].weight[::2])
    assert torch.equal(student[2].weight, 2 * teacher[2].weight[::2, ::2])
    assert torch.equal(student[2].bias, teacher[2].bias[::2])


def test_random_states_tensors_and_teacher_stay_what_they_are():
    teacher, student = build(features=[2 * count for count in SMALL], seed=1), build()
    before = deepcopy(teacher.state_dict())
    places = [value.data_ptr() for value in student.parameters()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    inherit_weights(student, teacher, "unet_w2")
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()
    assert [value.data_ptr() for value in student.parameters()] == places
    assert all(value.requires_grad and value.grad is None and value.is_leaf for value in student.parameters())
    assert_same(teacher.state_dict(), before)


def test_a_frozen_teacher_in_half_precision_is_read_as_it_is():
    teacher = build(features=[2 * count for count in SMALL], seed=1)
    student, expected = build(), build()
    inherit_weights(expected, teacher.half().float(), "unet_w2")
    inherit_weights(student, teacher.half().requires_grad_(False), "unet_w2")
    assert_same(student.state_dict(), expected.state_dict())
    assert next(student.parameters()).dtype == torch.float32


WIDE = [8, 12, 16, 16]


@pytest.mark.parametrize(
    ("student", "teacher", "choice", "message"),
    [
        pytest.param(
            {"name": RESIDUAL},
            {},
            "resnet18_w4",
            r"needs a student of the teacher's topology \(unet_w2, unet_w4, unet_w8, plans\), got resnet18_w4\. "
            r"First difference: the network \(PlainConvUNet\) in the teacher, the network \(ResidualEncoderUNet\) in",
            id="other-class",
        ),
        pytest.param(
            {"n_conv_per_stage": [2, 2, 2, 1]},
            {},
            "unet_w2",
            r"got unet_w2\. First difference: encoder\.stages\.3\.0\.convs\.1 \(ConvDropoutNormReLU\) in the teacher",
            id="other-depth",
        ),
        pytest.param(
            {"kernel_sizes": [[3, 3], [3, 3], [3, 3], [3, 3]]},
            {"kernel_sizes": [[3, 3], [3, 3], [3, 3], [1, 3]]},
            "unet_w2",
            r"encoder\.stages\.3\.0\.convs\.0\.conv of the teacher has kernel 1x3, the student's 3x3\.",
            id="kernel",
        ),
        pytest.param(
            {},
            {"strides": [[1, 1], [2, 2], [2, 2], [2, 1]]},
            "unet_w2",
            r"encoder\.stages\.3\.0\.convs\.0 of the teacher has stride 2x1, the student's 2x2\.",
            id="stride",
        ),
        pytest.param(
            {"features": [4, 7, 8, 8]},
            {"features": [16, 30, 32, 32]},
            "unet_w4",
            r"encoder\.stages\.1\.0\.convs\.0\.conv: 30 channels are no multiple of 7\.",
            id="channels",
        ),
        pytest.param(
            {"features": WIDE}, {"features": SMALL}, "plans", r": 4 channels are no multiple of 8\.", id="wider"
        ),
        pytest.param(
            {"channels": 1}, {"channels": 2}, "plans", r"the teacher has 2 inputs, the student 1\.", id="inputs"
        ),
        pytest.param({"heads": 2}, {"heads": 4}, "plans", r"the teacher has 4 outputs, the student 2\.", id="outputs"),
        pytest.param({"conv_bias": False}, {}, "unet_w2", r"conv of the teacher has weight, bias, the", id="bias"),
    ],
)
def test_refusals_name_the_first_difference_and_leave_the_student_alone(student, teacher, choice, message):
    large = build(**{"features": WIDE, **teacher}, seed=1)
    small = build(**student)
    before = deepcopy(small.state_dict())
    with pytest.raises(ValueError, match=f"initial_weights=teacher.*{message}") as caught:
        inherit_weights(small, large, choice)
    assert type(caught.value).__name__ == "UserError"
    assert re.search("initial_weights=random", str(caught.value))
    assert_same(small.state_dict(), before)


def test_a_teacher_with_more_stages_is_refused():
    with pytest.raises(ValueError, match=r"got unet_w2\. First difference: encoder\.stages\.4 "):
        inherit_weights(build(), build(features=[*WIDE, 16], stages=5, seed=1), "unet_w2")


def test_a_layer_of_unknown_channels_is_refused_where_they_differ():
    class Scale(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.scale = nn.Parameter(torch.randn(width))

    teacher, student = nn.Sequential(Scale(4)), nn.Sequential(Scale(4))
    inherit_weights(student, teacher, "plans")
    assert torch.equal(student[0].scale, teacher[0].scale)
    with pytest.raises(ValueError, match=r"cannot select channels of 0, a Scale: .*scale has shape \(8,\), .*\(4,\)"):
        inherit_weights(student, nn.Sequential(Scale(8)), "unet_w2")
