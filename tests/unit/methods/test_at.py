"""AT against the NumPy reference, its limits and its gradients."""

import numpy as np
import pytest
import reference.methods
import torch
from method_scene import FLAT, LARGE, SOLID, TWIN, UNEVEN, MethodLaws, Scene, gradients

from nnunetv2_hlfd.distillation.method import Roles
from nnunetv2_hlfd.distillation.registry import find_method
from nnunetv2_hlfd.methods.at import AT


class TestAT(MethodLaws):
    method_class = AT
    variants = ({"attention_exponent": 2.0}, {"attention_exponent": 4.0})
    feature_level = ("at",)

    def expected(self, scene):
        return {
            "at": reference.methods.at(
                scene.student.features,
                scene.teacher_features,
                scene.geometry.pairs,
                scene.settings.attention_exponent,
            )
        }


def test_title_weight_and_exponent():
    method = Scene(AT, FLAT, beta=7.0, lambda_=3.0).method
    assert method.title == "AT"
    assert method.weights == {"at": 1.0}
    assert find_method("AT") is AT
    assert find_method("AT").defaults == {"attention_exponent": 2.0}


@pytest.mark.parametrize(
    ("geometry", "student", "teacher"),
    [
        (
            FLAT,
            {1: "pair 1", 2: "pair 2", 3: "pair 3", 4: "pair 4", 5: "pair 5"},
            {2: "pair 1", 3: "pair 2", 4: "pair 3", 5: "pair 4", 6: "pair 5"},
        ),
        (UNEVEN, {2: "pair 1", 3: "pair 2", 4: "pair 3"}, {0: "pair 1", 2: "pair 2", 4: "pair 3"}),
        (SOLID, {1: "pair 1", 2: "pair 2", 3: "pair 3"}, {1: "pair 1", 3: "pair 2, 3"}),
    ],
    ids=["2d", "2d-uneven", "3d-anisotropic"],
)
def test_every_strided_stage_of_the_student_has_the_teachers_nearest_in_stride(geometry, student, teacher):
    assert Scene(AT, geometry).method.roles() == Roles(student=student, teacher=teacher)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 4.0])
def test_a_student_that_attends_as_its_teacher_has_at_0_and_no_gradient(exponent):
    """Scale and signs of the features do not matter."""
    scene = Scene(AT, TWIN, attention_exponent=exponent)
    scene.student_becomes_the_teacher()
    for stage, maps in enumerate(scene.student.features):
        maps *= -(stage + 0.5)
    student = scene.student_outputs()
    at = scene.terms(student)["at"]
    at.backward()
    assert at.item() == pytest.approx(0, abs=1e-12)
    assert max(each.abs().max() for each in gradients(student)) < 1e-12


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_stages_of_zeros_have_distance_1_each_and_no_gradient(exponent):
    scene = Scene(AT, FLAT, attention_exponent=exponent)
    for maps in scene.student.features:
        maps[:] = 0
    student = scene.student_outputs()
    at = scene.terms(student)["at"]
    at.backward()
    assert at.item() == pytest.approx(len(FLAT.pairs))
    assert not any(each.any() for each in gradients(student))


def test_by_hand():
    """Both attend to one place in every stage: the same one adds 0, another adds 2."""
    scene = Scene(AT, TWIN, attention_exponent=2.0)
    for network, place in ((scene.student, 1), (scene.teachers[0], 0)):
        for stage, maps in enumerate(network.features):
            maps[:] = 0
            np.moveaxis(maps, 1, -1)[(slice(None), *([place if stage == 2 else 0] * 2))] = [3, -4, *[0] * (stage + 2)]
    assert scene.terms()["at"].item() == pytest.approx(2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_values_keep_their_attention(dtype):
    """The student attends everywhere alike, the teacher to one place; 6e4^4 fits float32, sums of its square do not."""
    scene = Scene(AT, TWIN, attention_exponent=4.0)
    for maps in scene.student.features:
        maps[:] = LARGE
    for maps in scene.teachers[0].features:
        maps[:] = 0
        maps[:, :, 0, 0] = LARGE
    voxels = [np.prod(TWIN.student[stage]) for stage, _ in TWIN.pairs]
    assert scene.terms(dtype=dtype)["at"].item() == pytest.approx(sum(2 - 2 / n**0.5 for n in voxels), rel=1e-5)
