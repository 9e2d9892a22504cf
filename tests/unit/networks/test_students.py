"""The student as an `architecture` block of plans, and how the size of a network is counted."""

from copy import deepcopy
from math import prod

import pytest
import torch
from architectures import KINDS, PLAIN, RESIDUAL, architecture, geometry, narrow_architecture, patch_for
from torch import nn

from nnunetv2_hlfd.networks.choice import student_architecture
from nnunetv2_hlfd.networks.size import build_network, measure_network, measure_size
from nnunetv2_hlfd.networks.students import CHOICES as STUDENTS

RESNET18 = {  # stages of the student -> features, blocks
    3: ([16, 64, 64], [1, 1, 2]),
    4: ([16, 64, 64, 128], [1, 1, 2, 2]),
    5: ([16, 64, 64, 128, 256], [1, 1, 2, 2, 2]),
    6: ([16, 64, 64, 128, 256, 512], [1, 1, 2, 2, 2, 2]),
}


def students(block, choice, patch, channels=1, heads=3):
    return student_architecture(block, choice, patch, channels, heads)


def count_macs(network, patch, channels):
    """Multiply-accumulates by forward hooks, independently of torch's counter."""
    total = 0

    def add(module, inputs, output):
        nonlocal total
        transposed = isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d)
        total += prod((inputs[0] if transposed else output).shape[2:]) * module.weight.numel()

    for module in network.modules():
        if hasattr(module, "weight") and module.weight is not None and module.weight.ndim > 2:
            module.register_forward_hook(add)
    network(torch.zeros(1, channels, *patch))
    return total


# The ResNet18 students


@pytest.mark.parametrize("name", [PLAIN, RESIDUAL])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stages", range(3, 9))
def test_resnet18_takes_the_plans_strides_and_kernels_and_drops_what_they_have_no_stage_for(name, kind, stages):
    block = architecture(kind, stages, name=name)
    plans = deepcopy(block)
    student = students(block, "resnet18", patch_for(kind, stages))
    kept = min(6, stages)
    features, blocks = RESNET18[kept]
    kwargs = student["arch_kwargs"]
    strides, kernels = geometry(kind, stages)
    assert student["network_class_name"] == f"dynamic_network_architectures.architectures.unet.{RESIDUAL}"
    assert kwargs["n_stages"] == kept
    assert kwargs["features_per_stage"] == features
    assert kwargs["n_blocks_per_stage"] == blocks
    assert kwargs["strides"] == strides[:kept]
    assert kwargs["kernel_sizes"] == kernels[:kept]
    assert kwargs["n_conv_per_stage_decoder"] == [1] * (kept - 1)
    for key in ("conv_op", "norm_op", "norm_op_kwargs", "nonlin", "nonlin_kwargs", "conv_bias", "dropout_op"):
        assert kwargs[key] == plans["arch_kwargs"][key]
    assert block == plans


@pytest.mark.parametrize(
    ("choice", "features"),
    [
        ("resnet18", [16, 64, 64, 128, 256, 512]),
        ("resnet18_w2", [8, 32, 32, 64, 128, 256]),
        ("resnet18_w4", [4, 16, 16, 32, 64, 128]),
        ("resnet18_w8", [2, 8, 8, 16, 32, 64]),
    ],
)
def test_width_divides_the_channels_of_resnet18_only(choice, features):
    student = students(architecture("2d", 7), choice, [256, 256])
    assert student["arch_kwargs"]["features_per_stage"] == features
    assert student["arch_kwargs"]["n_blocks_per_stage"] == RESNET18[6][1]


@pytest.mark.parametrize("name", [PLAIN, RESIDUAL])
@pytest.mark.parametrize(("divisor", "features"), [(2, [16, 32, 64, 128]), (4, [8, 16, 32, 64]), (8, [4, 8, 16, 32])])
def test_unet_students_are_the_plans_network_with_divided_channels(name, divisor, features):
    block = architecture("2d", 4, name=name)
    expected = deepcopy(block)
    expected["arch_kwargs"]["features_per_stage"] = features
    assert students(block, f"unet_w{divisor}", [32, 32]) == expected


def test_unet_students_divide_every_number_of_channels_and_keep_at_least_one():
    block = architecture("2d", 3, name=RESIDUAL, features=[4, 16, 32])
    block["arch_kwargs"] |= {"bottleneck_channels": [8, 8, 16], "stem_channels": 32}
    kwargs = students(block, "unet_w8", [32, 32])["arch_kwargs"]
    assert kwargs["features_per_stage"] == [1, 2, 4]
    assert kwargs["bottleneck_channels"] == [1, 1, 2]
    assert kwargs["stem_channels"] == 4


def test_the_plans_own_network_can_be_the_student():
    block = architecture("2d", 5, name=RESIDUAL)
    assert students(block, "plans", [32, 32]) == block


@pytest.mark.parametrize("choice", STUDENTS)
def test_a_student_shares_nothing_with_the_plans_it_came_from(choice):
    block = architecture("anisotropic", 4)
    plans = deepcopy(block)
    student = students(block, choice, [8, 32, 32])
    for value in student["arch_kwargs"].values():
        if isinstance(value, list):
            value.clear()
        elif isinstance(value, dict):
            value["changed"] = True
    student["arch_kwargs"]["strides"] = student["_kw_requires_import"] = None
    assert block == plans


# Sizes: section 4 of DESIGN.md, and the choice `auto`


def test_full_width_against_the_default_2d_teacher():
    teacher = architecture("2d", 7)
    assert teacher["arch_kwargs"]["features_per_stage"] == [32, 64, 128, 256, 512, 512, 512]
    limit = measure_size(teacher, [256, 256], 1, 3)
    student = measure_size(students(teacher, "resnet18", [256, 256]), [256, 256], 1, 3)
    assert (limit.parameters / 1e6, limit.macs / 1e9) == (pytest.approx(33.5, abs=0.05), pytest.approx(14.8, abs=0.05))
    assert student.parameters / 1e6 == pytest.approx(13.6, abs=0.05)
    assert student.macs / 1e9 == pytest.approx(5.95, abs=0.005)
    assert str(student) == "13.6 M parameters, 5.95 GMAC per patch"
    assert students(teacher, "auto", [256, 256]) == students(teacher, "resnet18", [256, 256])


@pytest.mark.parametrize(
    ("name", "kind", "stages", "patch"),
    [
        (PLAIN, "2d", 4, [48, 48]),
        (RESIDUAL, "2d", 6, [128, 128]),
        (RESIDUAL, "isotropic", 5, [64, 64, 64]),
        (PLAIN, "anisotropic", 6, [32, 128, 128]),
    ],
)
def test_auto_is_the_widest_resnet18_with_at_most_045_of_parameters_and_operations(name, kind, stages, patch):
    teacher = architecture(kind, stages, name=name)
    limit = measure_size(teacher, patch, 1, 3)
    fitting = []
    for choice in ("resnet18", "resnet18_w2", "resnet18_w4", "resnet18_w8"):
        size = measure_size(students(teacher, choice, patch), patch, 1, 3)
        if size.parameters <= 0.45 * limit.parameters and size.macs <= 0.45 * limit.macs:
            fitting.append(choice)
    assert students(teacher, "auto", patch) == students(teacher, fitting[0], patch)


def test_auto_respects_the_limit_of_each_measure_by_itself():
    """Wide and shallow in the deep stages: parameters allow full width, operations do not; and the other way round."""
    many_parameters = architecture("2d", 6, features=[4, 8, 16, 32, 512, 1280])
    many_operations = architecture("2d", 6, features=[128, 128, 128, 128, 128, 128])
    full = measure_size(students(many_parameters, "resnet18", [64, 64]), [64, 64], 1, 3)
    for block, measure, other in ((many_parameters, "macs", "parameters"), (many_operations, "parameters", "macs")):
        limit = measure_size(block, [64, 64], 1, 3)
        assert getattr(full, other) <= 0.45 * getattr(limit, other)
        assert getattr(full, measure) > 0.45 * getattr(limit, measure)
        chosen = measure_size(students(block, "auto", [64, 64]), [64, 64], 1, 3)
        assert getattr(chosen, measure) <= 0.45 * getattr(limit, measure)


def test_auto_is_refused_where_even_the_smallest_student_is_too_large():
    tiny = architecture("2d", 5, features=[2, 2, 2, 2, 2])
    with pytest.raises(
        ValueError, match=r"^No ResNet18 student is smaller than 0.45 of the plans' own network"
    ) as caught:
        students(tiny, "auto", [32, 32])
    assert "GMAC per patch)" in str(caught.value)
    assert "Choose one by the setting 'student': " + ", ".join(STUDENTS) in str(caught.value)


# What cannot be a student


@pytest.mark.parametrize("choice", ["auto", "resnet18", "resnet18_w8"])
def test_fewer_than_three_stages_are_too_few_for_a_resnet18(choice):
    with pytest.raises(
        ValueError, match="Expected plans with at least 3 stages for a ResNet18 student, got 2"
    ) as caught:
        students(architecture("2d", 2), choice, [16, 16])
    assert "Use the setting student unet_w2, unet_w4 or unet_w8 instead" in str(caught.value)


def test_plans_of_two_stages_can_have_a_narrower_unet():
    assert students(architecture("2d", 2), "unet_w2", [16, 16])["arch_kwargs"]["features_per_stage"] == [16, 32]


def test_an_architecture_without_channels_per_stage_cannot_be_narrowed():
    block = {"network_class_name": "dynamic_network_architectures.architectures.primus.Primus", "arch_kwargs": {}}
    with pytest.raises(
        ValueError, match="Expected an architecture with features_per_stage for student unet_w4"
    ) as caught:
        students(block, "unet_w4", [16, 16])
    assert "got dynamic_network_architectures.architectures.primus.Primus. Choose a resnet18 student" in str(
        caught.value
    )


@pytest.mark.parametrize("choice", ["resnet34", "resnet18_w3x", "unet_wide", "tiny"])
def test_an_unknown_choice_is_answered_with_the_valid_ones(choice):
    with pytest.raises(ValueError, match="resnet18_w2, resnet18_w4"):
        students(architecture("2d", 4), choice, [32, 32])


# nnU-Net builds every student


@pytest.mark.parametrize("name", [PLAIN, RESIDUAL])
@pytest.mark.parametrize("kind", ["2d", "anisotropic"])
@pytest.mark.parametrize("choice", [each for each in STUDENTS if each != "auto"])
def test_nnunet_builds_every_student_and_its_outputs_fit_the_patch(name, kind, choice):
    patch = patch_for(kind, 4)
    network = build_network(students(narrow_architecture(kind, 4, name=name), choice, patch, 2), 2, 3)
    with torch.no_grad():
        outputs = network(torch.rand(1, 2, *patch))
    assert len(outputs) == 3
    assert outputs[0].shape == (1, 3, *patch)
    assert [each.shape[-1] for each in outputs] == [patch[-1], patch[-1] // 2, patch[-1] // 4]


@pytest.mark.parametrize(
    ("kind", "stages"), [*(("2d", stages) for stages in range(3, 9)), ("isotropic", 5), ("anisotropic", 6)]
)
def test_nnunet_builds_students_of_every_depth(kind, stages):
    patch = patch_for(kind, stages)
    student = students(architecture(kind, stages), "resnet18_w8", patch)
    network = build_network(student, 1, 3, deep_supervision=False)
    with torch.no_grad():
        assert network(torch.rand(1, 1, *patch)).shape == (1, 3, *patch)


# Counting


def test_the_size_of_a_tiny_network_equals_a_count_by_hand():
    block = architecture("2d", 2, features=[4, 8])
    block["arch_kwargs"] |= {"n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1]}
    size = measure_size(block, [8, 8], 1, 2)
    affine = {"encoder 0": 2 * 4, "encoder 1": 2 * 8, "decoder": 2 * 4}  # instance normalization
    weights = {"encoder 0": 4 * 1 * 9, "encoder 1": 8 * 4 * 9, "up": 8 * 4 * 4, "decoder": 4 * 8 * 9, "head": 2 * 4}
    biases = {"encoder 0": 4, "encoder 1": 8, "up": 4, "decoder": 4, "head": 2}
    positions = {"encoder 0": 64, "encoder 1": 16, "up": 16, "decoder": 64, "head": 64}  # up: on its input grid
    assert size.parameters == sum(weights.values()) + sum(biases.values()) + sum(affine.values())
    assert size.macs == sum(weights[name] * positions[name] for name in weights)


@pytest.mark.parametrize("choice", ["plans", "resnet18_w4", "unet_w2"])
@pytest.mark.parametrize("kind", KINDS)
def test_sizes_equal_an_independent_count(kind, choice):
    patch = patch_for(kind, 4)
    student = students(narrow_architecture(kind, 4, name=RESIDUAL), choice, patch, 2)
    network = build_network(student, 2, 3, deep_supervision=False)
    size = measure_size(student, patch, 2, 3)
    assert size.parameters == sum(each.numel() for each in network.parameters())
    assert size.macs == count_macs(network, patch, 2)


def test_a_frozen_network_counts_like_the_same_network_in_training():
    """The teacher is measured as loaded, frozen and with deep supervision; only what inference runs counts."""
    block = narrow_architecture("2d", 4)
    teacher = build_network(block, 1, 3, deep_supervision=True).eval().requires_grad_(False)
    assert measure_network(teacher, [32, 32], 1) == measure_size(block, [32, 32], 1, 3)
