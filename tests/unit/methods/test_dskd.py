"""The DSKD-style method against the NumPy reference, its limits and its gradients."""

import math

import numpy as np
import pytest
import reference.methods
import torch
from method_scene import (
    CLASSES,
    FLAT,
    KINDS,
    SOLID,
    TINY,
    TINY_SOLID,
    TWIN,
    UNEVEN,
    MethodLaws,
    Network,
    Scene,
    convolution,
    gradients,
)

from nnunetv2_hlfd.distillation.method import Roles
from nnunetv2_hlfd.distillation.registry import find_method
from nnunetv2_hlfd.methods.dskd import DSKD, loss_weighted


def stages_of(scene):
    return (scene.geometry.early, *scene.geometry.mids)


def stage_losses(scene, features=None, heads=None):
    """The reference's d_l and k_l, of other features or heads where given."""
    features = features or scene.student.features
    heads = heads or [convolution(scene.method.heads[str(stage)]) for stage in stages_of(scene)]
    settings = scene.settings
    return {
        "dskd_feature": reference.methods.dskd_features(
            features, scene.teacher_features, stages_of(scene), scene.geometry.late, settings.attention_exponent
        ),
        "dskd_pixel": reference.methods.dskd_pixels(
            features, stages_of(scene), heads, scene.teacher_logits, settings.temperature, scene.regions, scene.left_out
        ),
    }


class TestDSKD(MethodLaws):
    method_class = DSKD
    variants = ({"temperature": 1.0}, {"attention_exponent": 2.0})
    masked = ("dskd_pixel",)
    feature_level = ("dskd_feature",)

    def expected(self, scene):
        return {
            name: reference.methods.weighted_sum(losses, reference.methods.loss_weights(losses))
            for name, losses in stage_losses(scene).items()
        }

    def count_adapters(self, geometry, teachers):
        """Weight and bias of a head for each stage."""
        return 2 * (1 + len(geometry.mids))

    @pytest.mark.parametrize("regions", KINDS)
    @pytest.mark.parametrize("geometry", [TINY, TINY_SOLID], ids=["2d", "3d"])
    def test_gradcheck_of_student_and_adapters(self, geometry, regions):
        """Against differences of the reference with its weights held: no gradient flows through them."""
        scene = self.scene(geometry, regions=regions, ignore=True, distill_ignored=False)
        heads = [convolution(scene.method.heads[str(stage)]) for stage in stages_of(scene)]
        weights = {name: reference.methods.loss_weights(losses) for name, losses in stage_losses(scene).items()}
        for name, held in weights.items():
            scene.method.zero_grad()
            student = scene.student_outputs()
            scene.terms(student)[name].backward()
            for _ in range(3):
                features = [scene.random.normal(size=each.shape) for each in scene.student.features]
                directions = [[scene.random.normal(size=each.shape) for each in head] for head in heads]
                sides = []
                for step in (1e-6, -1e-6):
                    losses = stage_losses(
                        scene,
                        [each + step * way for each, way in zip(scene.student.features, features, strict=True)],
                        [
                            [each + step * way for each, way in zip(*both, strict=True)]
                            for both in zip(heads, directions, strict=True)
                        ],
                    )
                    sides.append(reference.methods.weighted_sum(losses[name], held))
                slope = sum((each.numpy() * way).sum() for each, way in zip(gradients(student), features, strict=False))
                if name == "dskd_pixel":
                    for stage, ways in zip(stages_of(scene), directions, strict=True):
                        head = scene.method.heads[str(stage)]
                        for each, way in zip((head.weight, head.bias), ways, strict=True):
                            slope += (each.grad.numpy().reshape(way.shape) * way).sum()
                assert slope == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-6, abs=1e-8)


def test_title_and_weights():
    assert DSKD.title == "DSKD-style (paper: HIFD)"
    assert Scene(DSKD, FLAT).method.weights == {"dskd_feature": 0.9, "dskd_pixel": 0.1}
    assert Scene(DSKD, FLAT, beta=7.0, lambda_=3.0).method.weights == {"dskd_feature": 7.0, "dskd_pixel": 3.0}
    assert find_method("DSKD") is DSKD


@pytest.mark.parametrize(
    ("geometry", "shallow", "late"), [(FLAT, (1, 2, 3, 4), 4), (UNEVEN, (2, 3, 4), 3), (SOLID, (1, 2, 3), 3)]
)
def test_shallow_stages_have_heads_and_learn_from_the_late_stage(geometry, shallow, late):
    method = Scene(DSKD, geometry).method
    assert method.roles() == Roles(student=dict.fromkeys(shallow, "shallow"), teacher={late: "late"})
    shapes = {name: tuple(each.shape) for name, each in method.named_parameters()}
    expected = {}
    for stage in shallow:
        expected[f"heads.{stage}.weight"] = (CLASSES, 2 + stage, *(1,) * len(geometry.image))
        expected[f"heads.{stage}.bias"] = (CLASSES,)
    assert shapes == expected


# Weights by the losses


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([1.5], 1.5), ([2.0, 2.0, 2.0], 2.0), ([0.0, math.log(3)], 0.75 * math.log(3)), ([0.0, 1e4], 1e4)],
)
def test_the_largest_loss_weighs_most(losses, expected):
    assert loss_weighted(torch.tensor(losses, dtype=torch.float64).unbind()).item() == pytest.approx(expected)


def test_no_gradient_reaches_the_weights():
    losses = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    loss_weighted(losses.unbind()).backward()
    assert losses.grad.tolist() == pytest.approx(reference.methods.loss_weights([0.5, 1.0, 3.0]))


# Limits


@pytest.mark.parametrize("regions", KINDS)
def test_terms_are_0_where_every_stage_attends_as_the_late_one_and_its_head_says_what_the_teacher_says(regions):
    """A student that equals its teacher need not reach 0: shallow stages are compared with a deeper one."""
    scene = Scene(DSKD, TWIN, regions=regions)
    said = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    scene.teachers[0].logits[0][:] = said.view(1, CLASSES, 1, 1).numpy()
    late = np.abs(scene.teachers[0].features[3]).mean(axis=1, keepdims=True)
    for stage, maps in enumerate(scene.student.features):
        times = [have // 2 for have in maps.shape[2:]]
        maps[:] = (stage + 1) * late.repeat(times[0], axis=2).repeat(times[1], axis=3)
    with torch.no_grad():
        for head in scene.method.heads.values():
            head.weight.zero_()
            head.bias.copy_(said)
    student = scene.student_outputs()
    terms = scene.terms(student)
    sum(terms.values()).backward()
    assert [each.item() for each in terms.values()] == pytest.approx([0, 0], abs=1e-12)
    assert max(each.abs().max() for each in gradients(student)) < 1e-12


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_stages_of_zeros_have_distance_1_and_no_gradient(exponent):
    scene = Scene(DSKD, FLAT, attention_exponent=exponent)
    scene.student = Network([np.zeros_like(each) for each in scene.student.features], scene.student.logits)
    student = scene.student_outputs()
    feature = scene.terms(student)["dskd_feature"]
    feature.backward()
    assert feature.item() == pytest.approx(1)
    assert not any(each.any() for each in gradients(student))
