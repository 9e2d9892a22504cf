"""SKD against the NumPy reference, its limits and its gradients."""

from dataclasses import replace

import numpy as np
import pytest
import reference.affinity
import reference.methods
import torch
from method_scene import (
    FLAT,
    KINDS,
    SOLID,
    TWIN,
    UNEVEN,
    MethodLaws,
    Scene,
    assert_equal,
    gradients,
)

from nnunetv2_hlfd.distillation.method import Roles
from nnunetv2_hlfd.distillation.registry import find_method
from nnunetv2_hlfd.methods.skd import SKD, node_affinity

GRIDS = {FLAT: (4, 3), UNEVEN: (2, 2), SOLID: (2, 2, 2)}  # of the nodes
LARGE = replace(
    FLAT,
    student=((24, 12), (16, 12), (13, 10), (11, 9), (4, 3), (2, 3)),
    teacher=((24, 12), (16, 12), (13, 12), (13, 10), (17, 6), (2, 3), (1, 3)),
)


class TestSKD(MethodLaws):
    method_class = SKD
    variants = ({"temperature": 2.0},)
    masked = ("skd_pixel",)
    feature_level = ("skd_pair",)

    def expected(self, scene):
        grid = GRIDS[scene.geometry]
        mine, theirs = scene.geometry.high
        return {
            "skd_pixel": reference.methods.skd_pixel(
                scene.student.logits[0], scene.teacher_logits, scene.regions, scene.left_out
            ),
            "skd_pair": reference.methods.skd_pair(
                scene.student.features[mine], [each[theirs] for each in scene.teacher_features], grid
            ),
        }


def test_title_and_weights():
    method = Scene(SKD, FLAT, beta=7.0, lambda_=3.0).method
    assert method.title == "SKD"
    assert method.weights == {"skd_pixel": 80.0, "skd_pair": 1.0}, "its source sums the pixel term over 8 images"
    assert Scene(SKD, FLAT, source_ratio=False).method.weights == {"skd_pixel": 10.0, "skd_pair": 1.0}
    assert find_method("SKD") is SKD


@pytest.mark.parametrize(
    ("geometry", "student", "teacher"), [(FLAT, 3, 4), (UNEVEN, 4, 3), (SOLID, 2, 3)], ids=["2d", "uneven", "3d"]
)
def test_pairs_are_compared_at_the_late_stage_and_the_students_nearest_in_stride(geometry, student, teacher):
    assert Scene(SKD, geometry).method.roles() == Roles(student={student: "pairs"}, teacher={teacher: "pairs"})


def test_nodes_are_at_most_8_on_each_axis():
    """The student's stage has 11 x 9 cells, the teacher's 17 x 6: both are pooled to 8 x 6."""
    scene = Scene(SKD, LARGE)
    expected = reference.methods.skd_pair(scene.student.features[3], [scene.teachers[0].features[4]], (8, 6))
    assert_equal({"skd_pair": scene.terms()["skd_pair"]}, {"skd_pair": expected})


def test_nodes_hold_the_largest_value_of_their_cells():
    maps = np.zeros((1, 2, 4, 4))
    maps[0, :, 1, 0], maps[0, :, 0, 1] = (3, -1), (1, 4)  # node 0: (3, 4)
    maps[0, :, 2:, :2] = -1  # node 2: (-1, -1)
    maps[0, 0, 3, 3] = 2  # node 3: (2, 0), node 1: zero
    diagonal = -7 / 5 / 2**0.5
    expected = [[1, 0, diagonal, 0.6], [0, 0, 0, 0], [diagonal, 0, 1, -(0.5**0.5)], [0.6, 0, -(0.5**0.5), 1]]
    np.testing.assert_allclose(node_affinity(torch.from_numpy(maps), (2, 2))[0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("regions", KINDS)
def test_a_student_that_equals_its_teacher_has_terms_0_and_no_gradient(regions):
    """Relations of places: the features' scale does not matter."""
    scene = Scene(SKD, TWIN, regions=regions)
    scene.student_becomes_the_teacher()
    scene.student.features[3] *= 5
    student = scene.student_outputs()
    terms = scene.terms(student)
    sum(terms.values()).backward()
    assert [each.item() for each in terms.values()] == pytest.approx([0, 0], abs=1e-12)
    assert max(each.abs().max() for each in gradients(student)) < 1e-12


def test_a_stage_of_zeros_gets_no_gradient():
    scene = Scene(SKD, FLAT)
    scene.student.features[3][:] = 0
    student = scene.student_outputs()
    pair = scene.terms(student)["skd_pair"]
    pair.backward()
    taught = reference.affinity.node_affinities(scene.teachers[0].features[4], (4, 3))
    assert pair.item() == pytest.approx(np.mean(taught**2))
    assert not student.features[3].grad.any()


def test_pairs_of_places_by_hand():
    """All places alike for the student (cosine 1); for the teacher two groups of 2 of the 4 places are orthogonal."""
    scene = Scene(SKD, TWIN)
    scene.student.features[3][:] = 1
    late = scene.teachers[0].features[3]
    late[:] = 0
    late[:, 0, 0], late[:, 1, 1] = 2, 3
    assert scene.terms()["skd_pair"].item() == pytest.approx(8 / 16)
