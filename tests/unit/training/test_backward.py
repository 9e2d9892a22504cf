"""The backward passes of a step: one on the sum, or one for each term; adapters, GradScaler, clipping."""

import math

import pytest
import torch
from architectures import architecture, patch_for
from torch import nn

from nnunetv2_hlfd.networks.size import build_network
from nnunetv2_hlfd.training.backward import backward, balanced_backward, step

CHOICES = ("cap", "gate", "project")
CONVOLUTION = "encoder.stages.1.0.convs.0.conv.weight"


class Scene:
    """A student, two adapters on one of its stages (one is in no term), and a segmentation loss with two terms."""

    def __init__(self):
        torch.manual_seed(0)
        self.network = build_network(architecture("2d", 3, features=[4, 6, 8]), 1, 2)
        self.adapters = nn.ModuleList([nn.Conv2d(6, 2, 1), nn.Conv2d(6, 2, 1)])
        self.data = torch.randn(2, 1, *patch_for("2d", 3))

    def losses(self):
        features = self.network.encoder(self.data)
        logits = self.network.decoder(features)
        feature = 3 * self.adapters[0](features[1]).square().mean()
        return logits[0].square().mean(), {"feature": feature, "final": 50 * logits[0][:, 0].mean() + 0.1 * feature}

    def single(self, scaler=None):
        segmentation, terms = self.losses()
        backward(sum(terms.values(), start=segmentation), list(self.adapters.parameters()), scaler, ddp=False)

    def balanced(self, choice="cap", ratio=0.3, scaler=None, injected=0.0):
        segmentation, terms = self.losses()
        terms["feature"] = terms["feature"] + injected * terms["feature"]
        adapters = list(self.adapters.parameters())
        return balanced_backward(segmentation, terms, self.network, adapters, scaler, False, choice, ratio)

    def gradients(self):
        """Of the student and of the adapters, by name; leaves none behind."""
        found = []
        for module in (self.network, self.adapters):
            found.append({name: parameter.grad for name, parameter in module.named_parameters()})
            module.zero_grad(set_to_none=True)
        return found


def test_one_backward_pass_is_that_of_the_sum_bit_for_bit():
    scene = Scene()
    scene.single()
    student, adapters = scene.gradients()
    segmentation, terms = scene.losses()
    (segmentation + terms["feature"] + terms["final"]).backward()
    for one, other in zip((student, adapters), scene.gradients(), strict=True):
        for name, gradient in one.items():
            assert (gradient is None) == (other[name] is None), name
            assert gradient is None or torch.equal(gradient, other[name]), name


def test_a_cap_that_is_never_reached_gives_the_gradient_of_the_sum():
    scene = Scene()
    scene.single()
    expected = scene.gradients()
    scene.balanced(ratio=1e20)
    for one, other in zip(scene.gradients(), expected, strict=True):
        for name, gradient in one.items():
            assert (gradient is None) == (other[name] is None), name
            if gradient is not None:
                torch.testing.assert_close(gradient, other[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("ratio", [1e-6, 0.3])
@pytest.mark.parametrize("choice", CHOICES)
def test_adapters_learn_from_the_terms_as_they_are(choice, ratio):
    scene = Scene()
    scene.single()
    student, expected = scene.gradients()
    record = scene.balanced(choice, ratio)
    balanced_student, adapters = scene.gradients()
    assert record.share[~record.share.isnan()].min() < 1
    assert any(
        not torch.allclose(gradient, student[name]) for name, gradient in balanced_student.items() if "conv" in name
    )
    assert [name for name, gradient in adapters.items() if gradient is None] == ["1.weight", "1.bias"]
    for name in ("0.weight", "0.bias"):
        torch.testing.assert_close(adapters[name], expected[name])
        assert adapters[name].abs().sum() > 0


@pytest.mark.parametrize("choice", CHOICES)
def test_parts_that_no_term_reaches_keep_the_segmentation_losss_gradient_bit_for_bit(choice):
    scene = Scene()
    segmentation, terms = scene.losses()
    segmentation.backward()
    alone, _ = scene.gradients()
    segmentation, terms = scene.losses()
    del terms["final"]
    balanced_backward(segmentation, terms, scene.network, list(scene.adapters.parameters()), None, False, choice, 0.3)
    gradients, _ = scene.gradients()
    decoder = [name for name in gradients if name.startswith("decoder.") and gradients[name] is not None]
    assert decoder
    assert all(torch.equal(gradients[name], alone[name]) for name in decoder)
    assert not torch.equal(
        gradients["encoder.stages.1.0.convs.0.conv.weight"], alone["encoder.stages.1.0.convs.0.conv.weight"]
    )


@pytest.mark.parametrize("choice", [None, *CHOICES])
def test_an_overflow_skips_that_step_and_no_other(choice):
    """GradScaler finds the term's inf in the student's gradients, and leaves the adapters alone as well."""
    scene = Scene()
    modules = nn.ModuleList([scene.network, scene.adapters])
    optimizer = torch.optim.SGD(scene.network.parameters(), lr=1e-3)
    optimizer.add_param_group({"params": list(scene.adapters.parameters())})
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=100)
    moved, scales = [], []
    for injected in (0.0, math.inf, 0.0):
        before = {name: parameter.detach().clone() for name, parameter in modules.named_parameters()}
        optimizer.zero_grad(set_to_none=True)
        if choice is None:
            segmentation, terms = scene.losses()
            backward(segmentation + (1 + injected) * terms["feature"], list(scene.adapters.parameters()), scaler, False)
        else:
            scene.balanced(choice, scaler=scaler, injected=injected)
        step(optimizer, scene.network, list(scene.adapters.parameters()), scaler)
        scales.append(scaler.get_scale())
        after = dict(modules.named_parameters())
        moved.append({name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])})
    assert moved == [{"0", "1"}, set(), {"0", "1"}]
    assert scales == [4.0, 2.0, 2.0]


def test_student_and_adapters_are_clipped_apart_after_the_scale_is_taken_away():
    """Norms of 24 and 6: one is halved, the other stays; an adapter without a gradient is passed over."""
    network, adapter, unused = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False), nn.Linear(1, 1)
    parameters = [*network.parameters(), *adapter.parameters(), *unused.parameters()]
    before = [parameter.item() for parameter in parameters]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(24 * network.weight.sum() + 6 * adapter.weight.sum()).backward()
    step(optimizer, network, [*adapter.parameters(), *unused.parameters()], scaler)
    moves = [one - parameter.item() for one, parameter in zip(before, parameters, strict=True)]
    assert moves == pytest.approx([12, 6, 0, 0], rel=1e-5)
