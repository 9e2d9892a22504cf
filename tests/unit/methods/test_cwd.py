"""CWD against the NumPy reference, its limits and its gradients."""

import math

import numpy as np
import pytest
import reference.methods
import torch
from method_scene import FLAT, IGNORE, KINDS, TWIN, MethodLaws, Scene, assert_equal, gradients

from nnunetv2_hlfd.distillation.method import Roles
from nnunetv2_hlfd.distillation.registry import find_method
from nnunetv2_hlfd.methods.cwd import CWD


class TestCWD(MethodLaws):
    method_class = CWD
    variants = ({"temperature": 1.0}, {"temperature": 2.5})
    masked = ("cwd",)

    def expected(self, scene):
        return {
            "cwd": reference.methods.cwd(
                scene.student.logits[0], scene.teacher_logits, scene.settings.temperature, scene.left_out
            )
        }


def test_title_weight_and_roles():
    method = Scene(CWD, FLAT, beta=7.0, lambda_=3.0).method
    assert method.title == "CWD"
    assert method.weights == {"cwd": 3.0}
    assert method.roles() == Roles(student={}, teacher={}, notes=["CWD teaches the final map only"])
    assert find_method("CWD") is CWD


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_channels_that_differ_by_constants_have_cwd_0_and_no_gradient(temperature):
    """What counts is how a channel is spread over the voxels."""
    scene = Scene(CWD, TWIN, temperature=temperature)
    scene.student_becomes_the_teacher()
    scene.student.logits[0] += np.array([5.0, -2.0, 1.0]).reshape(1, 3, 1, 1)
    student = scene.student_outputs()
    cwd = scene.terms(student)["cwd"]
    cwd.backward()
    assert cwd.item() == pytest.approx(0, abs=1e-12)
    assert max(each.abs().max() for each in gradients(student)) < 1e-12


def test_only_the_final_maps_matter_and_labels_are_treated_as_regions():
    scene = Scene(CWD, FLAT, teachers=2)
    before = scene.terms()["cwd"]
    for network in (scene.student, *scene.teachers):
        for maps in (*network.features, *network.logits[1:]):
            maps[:] = math.nan
    assert torch.equal(scene.terms()["cwd"], before)
    assert torch.equal(Scene(CWD, FLAT, teachers=2, regions=True).terms()["cwd"], before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("regions", KINDS)
def test_a_patch_that_is_ignored_everywhere_adds_0(regions, dtype):
    scene = Scene(CWD, FLAT, regions=regions, ignore=True, distill_ignored=False)
    scene.ignored[0] = True
    scene.target[0] = 1 if regions else IGNORE
    student = scene.student_outputs(dtype)
    terms = scene.method(student, scene.teacher_outputs(dtype), scene.target)
    terms["cwd"].backward()
    assert_equal(terms, TestCWD().expected(scene), rel=1e-9 if dtype == torch.float64 else 0.02)
    assert not student.logits[0].grad[0].any()
    assert student.logits[0].grad[1].any()


def test_what_ignored_voxels_hold_does_not_matter():
    values = []
    for value in (0.0, 1e3):
        scene = Scene(CWD, FLAT, ignore=True, distill_ignored=False)
        for network in (scene.student, *scene.teachers):
            network.logits[0][:] = np.where(scene.ignored, value, network.logits[0])
        values.append(scene.terms()["cwd"])
    assert torch.equal(*values)


def test_by_hand():
    """The teacher puts 3/4 of each channel into one half of the voxels, the student 1/2."""
    scene = Scene(CWD, TWIN, temperature=2.0)
    scene.student.logits[0][:] = 7
    scene.teachers[0].logits[0][:] = 0
    scene.teachers[0].logits[0][:, :, :4] = 2 * math.log(3)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert scene.terms()["cwd"].item() == pytest.approx(2**2 * divergence)
