"""FitNet against the NumPy reference, its limits and its gradients."""

import numpy as np
import pytest
import reference.methods
import torch
from method_scene import FLAT, SOLID, TWIN, UNEVEN, MethodLaws, Scene, convolution, gradients

from nnunetv2_hlfd.distillation.method import Roles
from nnunetv2_hlfd.distillation.registry import find_method
from nnunetv2_hlfd.methods.fitnet import FitNet


class TestFitNet(MethodLaws):
    method_class = FitNet
    feature_level = ("fitnet",)

    def expected(self, scene):
        guided, hint = scene.geometry.high
        return {
            "fitnet": reference.methods.fitnet(
                scene.student.features[guided],
                [each[hint] for each in scene.teacher_features],
                [convolution(each) for each in scene.method.regressors],
            )
        }

    def count_adapters(self, geometry, teachers):
        """Weight and bias of a regressor for each network."""
        return 2 * teachers


def test_title_and_weight():
    method = Scene(FitNet, FLAT, beta=7.0, lambda_=3.0).method
    assert method.title == "FitNet"
    assert method.weights == {"fitnet": 10.0}
    assert find_method("FitNet") is FitNet


@pytest.mark.parametrize(
    ("geometry", "guided", "hint"),
    [(FLAT, 3, 4), (UNEVEN, 4, 3), (SOLID, 2, 3)],
    ids=["2d", "2d-uneven", "3d-anisotropic"],
)
@pytest.mark.parametrize("teachers", [1, 3])
def test_each_teacher_network_has_a_regressor_from_the_guided_stage_to_its_hint(geometry, guided, hint, teachers):
    method = Scene(FitNet, geometry, teachers=teachers).method
    assert method.roles() == Roles(student={guided: "guided"}, teacher={hint: "hint"})
    ones = (1,) * len(geometry.image)
    shapes = {name: tuple(each.shape) for name, each in method.named_parameters()}
    assert shapes == {
        name: shape
        for number in range(teachers)
        for name, shape in (
            (f"regressors.{number}.weight", (5 + hint, 2 + guided, *ones)),
            (f"regressors.{number}.bias", (5 + hint,)),
        )
    }


def test_a_student_that_equals_its_teacher_has_fitnet_0_with_the_regressor_that_changes_nothing():
    """A linear regressor finds every teacher whose features are linear in the student's."""
    scene = Scene(FitNet, TWIN)
    scene.student_becomes_the_teacher()
    [regressor] = scene.method.regressors
    with torch.no_grad():
        regressor.weight.copy_(torch.eye(7)[..., None, None])
        regressor.bias.zero_()
    student = scene.student_outputs()
    fitnet = scene.terms(student)["fitnet"]
    fitnet.backward()
    assert fitnet.item() == pytest.approx(0, abs=1e-12)
    assert not any(each.any() for each in (*gradients(student), regressor.weight.grad, regressor.bias.grad))


def test_a_guided_stage_of_zeros_still_teaches_the_bias():
    scene = Scene(FitNet, TWIN)
    scene.student.features[3][:] = 0
    [regressor] = scene.method.regressors
    scene.terms()["fitnet"].backward()
    assert not regressor.weight.grad.any()
    assert regressor.bias.grad.all()


def test_the_regressor_can_learn_the_hint():
    """Least squares in a few steps: the term is the error of a linear model of the guided stage."""
    scene = Scene(FitNet, TWIN)
    mixing = scene.random.normal(size=(7, 7))
    scene.teachers[0].features[3] = np.einsum("kc,bcij->bkij", mixing, scene.student.features[3])
    optimizer = torch.optim.LBFGS(scene.method.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def step():
        optimizer.zero_grad()
        fitnet = scene.terms()["fitnet"]
        fitnet.backward()
        return fitnet

    assert optimizer.step(step).item() > 1e-2
    assert scene.terms()["fitnet"].item() < 1e-6


def test_by_hand():
    """Regressed to 1, taught 1 by one network and, in half of the cells, 4 instead of 1 by the other."""
    scene = Scene(FitNet, TWIN, teachers=2)
    with torch.no_grad():
        for regressor in scene.method.regressors:
            regressor.weight.zero_()
            regressor.bias.fill_(1)
    for network in scene.teachers:
        network.features[3][:] = 1
    scene.teachers[1].features[3][:, :, 0] = 4
    assert scene.terms()["fitnet"].item() == pytest.approx((0 + 9 / 2) / 2)
