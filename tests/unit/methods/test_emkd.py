"""EMKD without and with region affinity against the NumPy reference, its limits and its gradients."""

from itertools import pairwise

import numpy as np
import pytest
import reference.affinity
import reference.methods
import torch
from method_scene import (
    CLASSES,
    FLAT,
    IGNORE,
    KINDS,
    SOLID,
    TWIN,
    UNEVEN,
    MethodLaws,
    Scene,
    assert_equal,
    gradients,
)

from nnunetv2_hlfd.distillation.method import Roles, Task, TeacherShape
from nnunetv2_hlfd.distillation.registry import find_method
from nnunetv2_hlfd.distillation.taps import Stage, TeacherTaps
from nnunetv2_hlfd.methods.emkd import (
    EMKD,
    EMKDRegion,
    class_membership,
)
from nnunetv2_hlfd.settings.settings import Settings


def members_of(scene):
    return reference.affinity.class_membership(scene.target.numpy(), CLASSES, scene.regions, scene.ignored)


class TestEMKD(MethodLaws):
    method_class = EMKD
    variants = ({"attention_exponent": 4.0, "temperature": 1.0},)
    masked = ("emkd_prediction",)
    feature_level = ("emkd_importance",)

    def expected(self, scene):
        settings, geometry = scene.settings, scene.geometry
        return {
            "emkd_prediction": reference.methods.emkd_prediction(
                scene.student.logits[0], scene.teacher_logits, settings.temperature, scene.regions, scene.left_out
            ),
            "emkd_importance": reference.methods.emkd_importance(
                scene.student.features, scene.teacher_features, geometry.low, geometry.high, settings.attention_exponent
            ),
        }


class TestEMKDRegion(TestEMKD):
    """Voxels to ignore belong to no class, whatever distill_ignored says: where all are ignored no pair is left."""

    method_class = EMKDRegion
    always_masked = ("emkd_region",)

    def expected(self, scene):
        return super().expected(scene) | {
            "emkd_region": reference.methods.emkd_region(
                scene.student.features,
                scene.teacher_features,
                scene.geometry.low,
                scene.geometry.high,
                members_of(scene),
            )
        }


def region_term(scene, student=None):
    return scene.terms(student)["emkd_region"]


def test_titles_and_weights():
    assert EMKD.title == "EMKD (paper: DKD)"
    assert EMKDRegion.title == "EMKD with region affinity"
    assert Scene(EMKD, FLAT).method.weights == {"emkd_prediction": 0.1, "emkd_importance": 0.9}
    assert Scene(EMKDRegion, FLAT).method.weights == {
        "emkd_prediction": 0.1,
        "emkd_importance": 0.9,
        "emkd_region": 0.9,
    }
    assert Scene(EMKDRegion, FLAT, beta=7.0, lambda_=3.0).method.weights == {
        "emkd_prediction": 3.0,
        "emkd_importance": 7.0,
        "emkd_region": 7.0,
    }
    assert find_method("EMKD") is EMKD
    assert find_method("EMKD_region") is EMKDRegion


@pytest.mark.parametrize("method", [EMKD, EMKDRegion])
@pytest.mark.parametrize(
    ("geometry", "student", "teacher"),
    [
        (FLAT, {1: "low", 3: "high"}, {2: "low", 4: "high"}),
        (UNEVEN, {2: "low", 4: "high"}, {0: "low", 3: "high"}),
        (SOLID, {1: "low", 2: "high"}, {1: "low", 3: "high"}),
    ],
    ids=["2d", "2d-uneven", "3d-anisotropic"],
)
def test_a_low_and_a_high_stage_are_compared(method, geometry, student, teacher):
    assert Scene(method, geometry).method.roles() == Roles(student=student, teacher=teacher)


# Limits


@pytest.mark.parametrize("regions", KINDS)
def test_a_student_that_equals_its_teacher_has_terms_0_and_no_gradient(regions):
    """Importance and region affinity compare directions: the features' scale does not matter."""
    scene = Scene(EMKDRegion, TWIN, regions=regions)
    scene.student_becomes_the_teacher()
    for stage, maps in enumerate(scene.student.features):
        maps *= stage + 0.5
    student = scene.student_outputs()
    terms = scene.terms(student)
    sum(terms.values()).backward()
    assert [each.item() for each in terms.values()] == pytest.approx([0, 0, 0], abs=1e-12)
    assert max(each.abs().max() for each in gradients(student)) < 1e-12


@pytest.mark.parametrize("regions", KINDS)
def test_stages_of_zeros_get_no_gradient(regions):
    scene = Scene(EMKDRegion, FLAT, regions=regions)
    for maps in scene.student.features:
        maps[:] = 0
    student = scene.student_outputs()
    terms = scene.terms(student)
    (terms["emkd_importance"] + terms["emkd_region"]).backward()
    assert terms["emkd_importance"].item() == pytest.approx(2)
    assert_equal(terms, TestEMKDRegion().expected(scene))
    assert not any(each.any() for each in gradients(student))


@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("geometry", [FLAT, SOLID], ids=["2d", "3d"])
def test_absent_classes_make_no_pair(geometry, teachers):
    """One patch lacks a label, the other has all: 1 + 3 pairs, each with the same part in the mean."""
    scene = Scene(EMKDRegion, geometry, teachers=teachers)
    scene.target[0] = torch.where(scene.target[0] == 1, 2, scene.target[0])
    assert_equal(scene.terms(), TestEMKDRegion().expected(scene))


@pytest.mark.parametrize("regions", KINDS)
def test_patches_of_one_class_have_no_region_affinity(regions):
    scene = Scene(EMKDRegion, FLAT, regions=regions)
    scene.target = torch.zeros_like(scene.target)
    student = scene.student_outputs()
    region = region_term(scene, student)
    region.backward()
    assert region.item() == 0
    assert not any(each.any() for each in gradients(student))


def test_a_class_of_one_voxel_counts_as_the_others():
    """Nearest resizing would lose it on the coarser grids."""
    scene = Scene(EMKDRegion, FLAT)
    scene.target[:] = 0
    scene.target[0, 0, 5, 5] = 2
    expected = TestEMKDRegion().expected(scene)
    assert expected["emkd_region"] > 1e-3
    assert_equal(scene.terms(), expected)


def test_region_affinity_by_hand():
    """The student's two classes are alike (cosine 1), the teacher's are orthogonal; patch 1 has one class only."""
    scene = Scene(EMKDRegion, TWIN)
    scene.target[:] = 0
    scene.target[0, 0, 4:] = 2
    for maps, other in ((scene.student.features, 0), (scene.teachers[0].features, 1)):
        for stage in (1, 3):
            middle = maps[stage].shape[2] // 2
            maps[stage][:] = 0
            maps[stage][:, 0, :middle], maps[stage][:, other, middle:] = 2, 3
    assert region_term(scene).item() == pytest.approx(1 + 1)


# Classes


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", [FLAT, SOLID], ids=["2d", "3d"])
def test_class_membership_equals_the_reference(geometry, regions, ignore):
    scene = Scene(EMKDRegion, geometry, regions=regions, ignore=ignore)
    computed = class_membership(scene.target, scene.method.task)
    np.testing.assert_array_equal(computed.numpy(), members_of(scene))


def test_regions_overlap_and_what_lies_in_none_is_a_class():
    regions = torch.tensor([[1, 1, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1]]).view(1, 3, 1, 5)  # last: to ignore
    task = Task(num_heads=2, regions=True, dimension=2, ignore_label=IGNORE)
    assert class_membership(regions, task)[0, :, 0].tolist() == [[0, 0, 1, 0, 0], [1, 1, 0, 0, 0], [0, 1, 0, 1, 0]]


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.float32])
def test_class_membership_of_labels_in_nnunets_types(dtype):
    task = Task(num_heads=2, regions=False, dimension=2, ignore_label=2)
    target = torch.tensor([0, 1, 2, 1], dtype=dtype).view(1, 1, 2, 2)
    assert class_membership(target, task).flatten(2).tolist() == [[[1, 0, 0, 0], [0, 1, 0, 1]]]


@pytest.mark.parametrize("regions", KINDS)
def test_features_where_voxels_are_to_be_ignored_have_no_part_in_region_affinity(regions):
    """On the finest grid, where cells are voxels; the setting distill_ignored is about pixel-level terms."""
    terms = []
    for value in (0.0, 100.0):
        scene = Scene(EMKDRegion, UNEVEN, regions=regions, ignore=True, distill_ignored=True)
        low = scene.teachers[0].features[0]
        low[:] = np.where(scene.ignored, value, low)
        terms.append(region_term(scene))
    assert all(torch.equal(*pair) for pair in pairwise(terms))


def test_low_and_high_are_one_pair_where_the_late_stage_is_so_shallow():
    """Neither counted twice nor left out of the tap table."""
    student = [Stage(channels=4, stride=(stride, stride)) for stride in (1, 4, 8)]
    teacher = [Stage(channels=4, stride=(stride, stride)) for stride in (1, 2, 4, 8)]
    shape = TeacherShape(stages=tuple(teacher), taps=TeacherTaps(mids=(1,), late=2, heads=()))
    method = EMKD(student, shape, Task(num_heads=2, regions=False, dimension=2), Settings())
    assert method.pairs == ((1, 2),)
    assert method.roles() == Roles(student={1: "low, high"}, teacher={2: "low, high"})
