"""The IMF-style method against the NumPy reference, its limits and its gradients."""

import numpy as np
import pytest
import reference.divergence
import reference.methods
import torch
from method_scene import (
    CLASSES,
    FLAT,
    KINDS,
    SOLID,
    TWIN,
    UNEVEN,
    MethodLaws,
    Scene,
    convolution,
    gradients,
)

from nnunetv2_hlfd.distillation.method import Roles
from nnunetv2_hlfd.distillation.registry import find_method
from nnunetv2_hlfd.methods.imf import IMF

TERMS = ("imf_branches", "imf_merged")


def branch_arrays(branch):
    depthwise, pointwise, normalization, _, logits = branch
    own = [each.detach().numpy() for each in (depthwise.weight, depthwise.bias)]
    scale_and_shift = [each.detach().numpy() for each in (normalization.weight, normalization.bias)]
    return (own[0][:, 0], own[1]), convolution(pointwise), scale_and_shift, None, convolution(logits)


def randomize(scene, attentive=True):
    """Other than initial scales, shifts and attentive weights."""
    with torch.no_grad():
        for name, each in scene.method.named_parameters():
            if each.ndim == 1 or (attentive and name == "attentive"):
                each += torch.from_numpy(scene.random.normal(scale=0.3, size=each.shape))
    return scene


class TestIMF(MethodLaws):
    method_class = IMF
    variants = ({"temperature": 1.0},)
    masked = TERMS

    def scene(self, geometry, **settings):
        return randomize(super().scene(geometry, **settings))

    def expected(self, scene):
        return reference.methods.imf_terms(
            [scene.student.features[stage] for stage in scene.geometry.mids],
            [branch_arrays(scene.method.branches[str(stage)]) for stage in scene.geometry.mids],
            scene.method.attentive.detach().numpy(),
            scene.teacher_logits,
            scene.settings.temperature,
            scene.regions,
            scene.left_out,
        )

    def count_adapters(self, geometry, teachers):
        """Weight and bias of two convolutions, a normalization and the logits of each branch; the attentive weights."""
        return 8 * len(geometry.mids) + 1


def test_title_and_weights():
    assert IMF.title == "IMF-style (paper: IFD)"
    assert Scene(IMF, FLAT).method.weights == {"imf_branches": 0.1, "imf_merged": 0.1}
    assert Scene(IMF, FLAT, beta=7.0, lambda_=3.0).method.weights == {"imf_branches": 3.0, "imf_merged": 3.0}
    assert find_method("IMF") is IMF


@pytest.mark.parametrize(("geometry", "mids"), [(FLAT, (2, 3, 4)), (UNEVEN, (3, 4)), (SOLID, (2, 3))])
def test_middle_stages_have_branches_and_every_class_of_a_branch_a_weight(geometry, mids):
    method = Scene(IMF, geometry).method
    assert method.roles() == Roles(
        student=dict.fromkeys(mids, "branch"), teacher={}, notes=["IMF teaches by the final map"]
    )
    shapes = {name: tuple(each.shape) for name, each in method.named_parameters()}
    cube, ones = (3,) * len(geometry.image), (1,) * len(geometry.image)
    expected = {"attentive": (len(mids), CLASSES)}
    for stage in mids:
        channels = 2 + stage
        weights = {
            0: (channels, 1, *cube),
            1: (channels, channels, *ones),
            2: (channels,),
            4: (CLASSES, channels, *ones),
        }
        for layer, shape in weights.items():
            expected |= {f"branches.{stage}.{layer}.weight": shape, f"branches.{stage}.{layer}.bias": shape[:1]}
    assert shapes == expected


@pytest.mark.parametrize("geometry", [FLAT, SOLID], ids=["2d", "3d"])
def test_at_the_start_the_merged_map_is_the_mean_of_the_branches(geometry):
    attentive = Scene(IMF, geometry).method.attentive
    assert torch.equal(attentive.detach(), torch.full_like(attentive, torch.tensor(1 / len(geometry.mids)).item()))


# Limits


@pytest.mark.parametrize("regions", KINDS)
def test_terms_are_0_without_gradient_where_the_branches_say_what_the_teacher_says(regions):
    """A student that equals its teacher need not reach 0: its branches are maps of their own."""
    scene = Scene(IMF, TWIN, regions=regions)
    said = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    scene.teachers[0].logits[0][:] = said.view(1, CLASSES, 1, 1).numpy()
    with torch.no_grad():
        for branch in scene.method.branches.values():
            branch[-1].weight.zero_()
            branch[-1].bias.copy_(said)
    student = scene.student_outputs()
    terms = scene.terms(student)
    sum(terms.values()).backward()
    assert [terms[name].item() for name in TERMS] == pytest.approx([0, 0], abs=1e-9)
    assert max(each.abs().max() for each in gradients(student)) < 1e-12


def test_the_merged_map_alone_depends_on_the_attentive_weights():
    scene = Scene(IMF, FLAT)
    before = scene.terms()
    with torch.no_grad():
        scene.method.attentive[1, 2] += 0.5
    after = scene.terms()
    assert torch.equal(before["imf_branches"], after["imf_branches"])
    assert not torch.equal(before["imf_merged"], after["imf_merged"])


def test_a_branch_of_constant_maps_says_the_same_everywhere():
    """Away from the border, which the depthwise convolution pads by zeros; normalization does not divide by 0."""
    scene = Scene(IMF, FLAT)
    for value in (0.0, 5.0):
        constant = torch.full((1, 4, 7, 8), value, dtype=torch.float64)
        said = scene.method.branches["2"](constant)[..., 1:-1, 1:-1]
        torch.testing.assert_close(said, said[..., :1, :1].expand_as(said))


def test_samples_are_normalized_one_by_one():
    """nnU-Net's batches are small: what a branch says of a patch does not depend on the others."""
    scene = Scene(IMF, FLAT)
    maps = torch.from_numpy(scene.student.features[3])
    branch = scene.method.branches["3"]
    together = branch(maps)
    for training in (True, False):
        branch.train(training)
        torch.testing.assert_close(torch.cat([branch(maps[:1]), branch(maps[1:])]), together)


@pytest.mark.parametrize("regions", KINDS)
def test_several_teacher_networks_teach_by_their_mean_probability(regions):
    scene = Scene(IMF, FLAT, regions=regions, teachers=2)
    merged = scene.terms()
    p = reference.divergence.taught_probabilities(scene.teacher_logits, scene.settings.temperature, regions)
    logits = scene.settings.temperature * (np.log(p) - (np.log(1 - p) if regions else 0))
    scene.teachers[0].logits[0], scene.teachers[1].logits[0] = logits, logits
    for name, each in scene.terms().items():
        assert each.item() == pytest.approx(merged[name].item(), rel=1e-9)
