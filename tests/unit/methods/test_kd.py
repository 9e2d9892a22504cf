"""KD against the NumPy reference, its limits and its gradients."""

import math

import pytest
import reference.divergence
import reference.methods
import torch
from method_scene import FLAT, KINDS, TWIN, MethodLaws, Scene, gradients

from nnunetv2_hlfd.distillation.method import Roles
from nnunetv2_hlfd.distillation.registry import find_method
from nnunetv2_hlfd.methods.kd import KD


class TestKD(MethodLaws):
    method_class = KD
    variants = ({"temperature": 1.0}, {"temperature": 2.5})
    masked = ("kd",)

    def expected(self, scene):
        return {
            "kd": reference.methods.kd(
                scene.student.logits[0],
                scene.teacher_logits,
                scene.settings.temperature,
                scene.regions,
                scene.left_out,
            )
        }


def test_title_weight_and_roles():
    method = Scene(KD, FLAT, beta=7.0, lambda_=3.0).method
    assert method.title == "KD"
    assert method.weights == {"kd": 1.0}
    assert method.roles() == Roles(student={}, teacher={}, notes=["KD teaches the final map only"])
    assert find_method("KD") is KD


@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_student_that_equals_its_teacher_has_kd_0_and_no_gradient(temperature, regions):
    scene = Scene(KD, TWIN, regions=regions, temperature=temperature)
    scene.student_becomes_the_teacher()
    student = scene.student_outputs()
    kd = scene.terms(student)["kd"]
    kd.backward()
    assert kd.item() == pytest.approx(0, abs=1e-12)
    assert max(each.abs().max() for each in gradients(student)) < 1e-12


def test_only_the_final_maps_matter():
    scene = Scene(KD, FLAT, teachers=2)
    before = scene.terms()["kd"]
    for network in (scene.student, *scene.teachers):
        for maps in (*network.features, *network.logits[1:]):
            maps[:] = math.nan
    assert torch.equal(scene.terms()["kd"], before)


@pytest.mark.parametrize(("regions", "channels"), [(False, 1), (True, 3)])
def test_by_hand(regions, channels):
    """The teacher says 3/4 : 1/4, the student 1/2 : 1/2. A third class has (nearly) no part, or says the same."""
    scene = Scene(KD, TWIN, regions=regions, temperature=2.0)
    if regions:
        scene.teachers[0].logits[0][:] = 2 * math.log(3)
        scene.student.logits[0][:] = 0
    else:
        scene.teachers[0].logits[0][:, :2] = [[[[2 * math.log(3)]], [[0.0]]]]
        scene.student.logits[0][:, :2] = 0
        for network in (scene.student, *scene.teachers):
            network.logits[0][:, 2] = -1e3
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert scene.terms()["kd"].item() == pytest.approx(2**2 * channels * divergence)


@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probabilities_of_half_precision_logits_are_float32(dtype, regions):
    scene = Scene(KD, FLAT, teachers=2, regions=regions)
    taught = scene.teacher_outputs(dtype).probabilities(0, 4.0, regions)
    exact = scene.teacher_outputs(dtype)
    expected = reference.divergence.taught_probabilities(
        [each.logits[0].double().numpy() for each in exact.networks], 4.0, regions
    )
    assert taught.dtype == torch.float32
    assert taught.numpy() == pytest.approx(expected, abs=1e-6)
