"""SoftLabel against the NumPy reference, at one-hot targets, at its minimum, and its options."""

import math

import numpy as np
import pytest
import reference.divergence
import reference.grids
import reference.soft_labels
import torch
from method_scene import FLAT, GEOMETRIES, KINDS, SOLID, TWIN, MethodLaws, Scene, gradients
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

from nnunetv2_hlfd.distillation.method import FINAL, OF_ANY_NETWORK, Roles
from nnunetv2_hlfd.distillation.registry import find_method
from nnunetv2_hlfd.losses.focal_dice import FocalDiceLoss
from nnunetv2_hlfd.methods.soft_label import SoftLabel

CERTAIN = 1e3  # a logit that makes a probability of exactly 0 or 1


def taught(scene):
    """p^t, at temperature 1 whatever the setting temperature is."""
    return reference.divergence.taught_probabilities(scene.teacher_logits, 1, scene.regions)


def become(scene, probabilities):
    """Give the student these probabilities, averaged over the voxels of each of its outputs."""
    for index, logits in enumerate(scene.student.logits):
        p = reference.grids.area_average(probabilities, logits.shape[2:])
        scene.student.logits[index] = np.log(p) - (np.log1p(-p) if scene.regions else 0)


class TestSoftLabel(MethodLaws):
    method_class = SoftLabel
    variants = (
        {"teacher_share": 0.9, "temperature": 7.0},
        {"soft_dice_share": 0.75},
        {"batch_dice": True, "output_weights": (0.5, 0.0, 0.25, 0.25, 0.125, 0.0)},
        {"recipe": "nnunet", "soft_dice_share": 0.25},
    )
    masked = ("soft_label",)

    def scene(self, geometry, **settings):
        weights = settings.pop("output_weights", None)
        number = len(geometry.student) - 1
        return super().scene(geometry, output_weights=weights and weights[:number], **settings)

    def expected(self, scene):
        return {
            "soft_label": reference.soft_labels.deep_soft_label_loss(
                scene.student.logits,
                scene.output_weights,
                taught(scene),
                scene.left_out,
                recipe=scene.settings.recipe,
                regions=scene.regions,
                batch_dice=scene.batch_dice,
                share=scene.settings.soft_dice_share,
                has_ignore_label=scene.ignored is not None,
            )
        }


def test_title_weight_needs_and_roles():
    method = Scene(SoftLabel, FLAT, beta=7.0, lambda_=3.0, teacher_share=0.3).method
    assert method.title == "Soft labels"
    assert method.weights == {"soft_label": 0.3}
    assert method.segmentation_terms == {"soft_label"}
    assert method.needs == {FINAL} <= OF_ANY_NETWORK
    assert method.roles() == Roles(student={}, teacher={}, notes=["soft labels teach every output by the final map"])
    assert find_method("SoftLabel") is SoftLabel


@pytest.mark.parametrize("recipe", ["paper", "nnunet"])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("geometry", [FLAT, SOLID], ids=["2d", "3d-anisotropic"])
def test_the_minimum_is_where_the_student_says_what_its_teacher_says(geometry, regions, recipe):
    """On every output that has a weight each small change of a map costs."""
    scene = Scene(SoftLabel, geometry, regions=regions, recipe=recipe)
    become(scene, taught(scene))
    least = scene.terms()["soft_label"]
    for index, weight in enumerate(scene.output_weights):
        scene.student.logits[index] += 1e-2 * scene.random.normal(size=scene.student.logits[index].shape)
        assert (scene.terms()["soft_label"] > least) == (weight > 0)
        become(scene, taught(scene))


@pytest.mark.parametrize("recipe", ["paper", "nnunet"])
@pytest.mark.parametrize("regions", KINDS)
def test_a_student_that_equals_its_teacher_gets_no_gradient(regions, recipe):
    scene = Scene(SoftLabel, TWIN, regions=regions, recipe=recipe, output_weights=(1.0, 0.0, 0.0))
    scene.student_becomes_the_teacher()
    student = scene.student_outputs()
    scene.terms(student)["soft_label"].backward()
    assert max(gradient.abs().max() for gradient in gradients(student)) < 1e-12


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("regions", KINDS)
def test_a_teacher_that_says_the_label_changes_nothing(regions, batch_dice, share):
    """(1 - a) L_seg + a S is focal Dice on every output. Labels that fill the coarsest voxels stay one-hot in them."""
    scene = Scene(SoftLabel, TWIN, regions=regions, batch_dice=batch_dice, teacher_share=share)
    if regions:
        labels = [(scene.random.random((2, 3, 2, 2)) < 0.4).astype(float)]
        one_hot = labels[0]
    else:
        labels = [scene.random.integers(0, 3, (2, 1, 2, 2)).astype(float)]
        one_hot = np.stack([labels[0][:, 0] == label for label in range(3)], axis=1)
    sizes = [logits.shape[2:] for logits in scene.student.logits]

    def enlarge(maps, size):
        return maps.repeat(size[0] // 2, axis=2).repeat(size[1] // 2, axis=3)

    scene.teachers[0].logits[0][:] = CERTAIN * (2 * enlarge(one_hot, sizes[0]) - 1)
    targets = [torch.from_numpy(enlarge(labels[0], size)) for size in sizes]
    loss = DeepSupervisionWrapper(
        FocalDiceLoss(regions=regions, batch_dice=batch_dice, ignore_label=None), scene.output_weights
    )
    student = scene.student_outputs()
    segmentation = loss(student.logits, targets)
    [weight] = scene.method.weights.values()
    total = (1 - weight) * segmentation + weight * scene.terms(student)["soft_label"]
    assert total.item() == pytest.approx(segmentation.item(), rel=1e-6)
    expected = torch.autograd.grad(segmentation, student.logits, retain_graph=True, allow_unused=True)
    computed = torch.autograd.grad(total, student.logits, allow_unused=True)
    for one, other in zip(computed, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_only_the_teachers_final_map_and_the_students_outputs_matter(geometry):
    scene = Scene(SoftLabel, geometry, teachers=2)
    before = scene.terms()["soft_label"]
    for network in (scene.student, *scene.teachers):
        for maps in network.features:
            maps[:] = math.nan
    for teacher in scene.teachers:
        for maps in teacher.logits[1:]:
            maps[:] = math.nan
    assert torch.equal(scene.terms()["soft_label"], before)


@pytest.mark.parametrize("regions", KINDS)
def test_where_everything_is_ignored_the_teacher_teaches_unless_told_not_to(regions):
    for distill_ignored in (True, False):
        scene = Scene(SoftLabel, FLAT, regions=regions, ignore=True, distill_ignored=distill_ignored)
        scene.ignore_everything()
        student = scene.student_outputs()
        scene.terms(student)["soft_label"].backward()
        taught_outputs = [gradient.any().item() for gradient in gradients(student)[len(student.features) :]]
        assert taught_outputs == [distill_ignored and weight > 0 for weight in scene.output_weights]
