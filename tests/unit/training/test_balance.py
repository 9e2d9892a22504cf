"""Terms capped, gated or projected per part of the network, added to the segmentation loss's gradient."""

import math

import numpy as np
import pytest
import torch
from architectures import PLAIN, RESIDUAL, architecture, narrow_architecture, patch_for
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from nnunetv2_hlfd.networks.size import build_network
from nnunetv2_hlfd.training.balance import balance, group_parameters

CHOICES = ("cap", "gate", "project")
NAN = float("nan")


def parameters_of(*gradients, dtype=torch.float64):
    """Parameters whose `grad` is what the segmentation loss left there; None stays None."""
    result = []
    for gradient in gradients:
        values = torch.tensor([0.0, 0.0] if gradient is None else gradient, dtype=torch.float64)
        parameter = nn.Parameter(torch.zeros_like(values, dtype=dtype))
        parameter.grad = None if gradient is None else values.to(dtype)
        result.append(parameter)
    return result


def tensors(*gradients, dtype=torch.float64):
    return [None if gradient is None else torch.tensor(gradient, dtype=dtype) for gradient in gradients]


def random_case(seed, terms=3, dtype=torch.float64):
    """Two parts of three parameters and gradients of very different sizes, some of them against each other."""
    random = np.random.default_rng(seed)
    shapes = [(4, 3), (5,), (2, 2, 3)]

    def draw(scale):
        return [torch.from_numpy(scale * random.normal(size=shape)).to(dtype) for shape in (*shapes, *shapes)]

    parameters = [nn.Parameter(torch.zeros_like(value)) for value in draw(1)]
    segmentation = draw(10.0 ** random.uniform(-2, 1))
    for parameter, gradient in zip(parameters, segmentation, strict=True):
        parameter.grad = gradient.clone()
    term_gradients = {}
    for term in range(terms):
        along = random.uniform(-3, 3)
        term_gradients[f"term{term}"] = [
            along * own + other for own, other in zip(segmentation, draw(10.0 ** random.uniform(-2, 2)), strict=True)
        ]
    return {"a": parameters[:3], "b": parameters[3:]}, segmentation, term_gradients


def flat(values):
    return torch.cat([value.flatten() for value in values])


def halves(parts, segmentation, term_gradients):
    """Part's name, gradient after balancing, segmentation loss's and the terms' gradients, each as one row."""
    for index, (name, parameters) in enumerate(parts.items()):
        here = slice(3 * index, 3 * index + 3)
        yield (
            name,
            flat([parameter.grad for parameter in parameters]),
            flat(segmentation[here]),
            [flat(values[here]) for values in term_gradients.values()],
        )


# The formulas


def test_by_hand():
    """g_s = (3, 4) of norm 5; g_t = (-8, 6) of norm 10 at right angles and g_u = (-6, -8) of norm 10 against it."""
    expected = {
        "cap": ([0.25, 0.25], (3 - 2 - 1.5, 4 + 1.5 - 2)),
        "gate": ([0.0, 0.0], (3, 4)),
        "project": ([0.25, 0.0], (3 - 2, 4 + 1.5)),
    }
    for choice, (share, gradient) in expected.items():
        [parameter] = parameters_of([3.0, 4.0])
        term_gradients = {"t": tensors([-8.0, 6.0]), "u": tensors([-6.0, -8.0])}
        record = balance({"all": [parameter]}, term_gradients, choice, 0.5)
        assert (record.parts, record.terms) == (("all",), ("t", "u"))
        assert record.share[0].tolist() == pytest.approx(share)
        assert record.ratio.tolist() == [[2.0, 2.0]]
        assert record.cosine[0].tolist() == pytest.approx([0.0, -1.0])
        assert parameter.grad.tolist() == pytest.approx(gradient)


def test_gate_by_hand():
    """g_s = (1, 0), g_t = (3, 4): cosine 0.6, five times as long; rho 2 caps it at 0.4 of itself."""
    [parameter] = parameters_of([1.0, 0.0])
    record = balance({"all": [parameter]}, {"t": tensors([3.0, 4.0])}, "gate", 2.0)
    assert record.share.item() == pytest.approx(0.4 * 0.6)
    assert parameter.grad.tolist() == pytest.approx([1 + 0.24 * 3, 0.24 * 4])


def test_norms_and_cosines_are_those_of_the_whole_part():
    """One parameter alone would be capped otherwise."""
    parameters = parameters_of([3.0, 0.0], [0.0, 4.0])
    record = balance({"all": parameters}, {"t": tensors([0.0, 0.0], [0.0, 20.0])}, "cap", 1.0)
    assert record.share.item() == pytest.approx(5 / 20)
    assert record.cosine.item() == pytest.approx(4 / 5)
    assert [parameter.grad.tolist() for parameter in parameters] == [[3.0, 0.0], [0.0, 9.0]]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("seed", range(20))
def test_equals_the_formulas(seed, choice):
    parts, segmentation, term_gradients = random_case(seed)
    rho = 10.0 ** np.random.default_rng(seed).uniform(-2, 1)
    record = balance(parts, term_gradients, choice, rho)
    for row, (_, gradient, own, terms) in enumerate(halves(parts, segmentation, term_gradients)):
        expected = own.clone()
        for column, term in enumerate(terms):
            cosine = (own @ term / (own.norm() * term.norm())).item()
            added = term - min(0.0, cosine) * term.norm() * own / own.norm() if choice == "project" else term
            share = min(1.0, rho * (own.norm() / added.norm()).item())
            share *= max(0.0, cosine) if choice == "gate" else 1
            expected += share * added
            assert record.share[row, column].item() == pytest.approx(share, rel=1e-9)
            assert record.ratio[row, column].item() == pytest.approx((term.norm() / own.norm()).item(), rel=1e-9)
            assert record.cosine[row, column].item() == pytest.approx(cosine, rel=1e-9)
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


# The guarantees


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("rho", [0.3, 1.0, 1e6])
@pytest.mark.parametrize("choice", ["gate", "project"])
@pytest.mark.parametrize("seed", range(20))
def test_gate_and_project_never_work_against_the_segmentation_loss(seed, choice, rho, dtype, tolerance):
    parts, segmentation, term_gradients = random_case(seed, dtype=dtype)
    balance(parts, term_gradients, choice, rho)
    for _, gradient, own, terms in halves(parts, segmentation, term_gradients):
        rounding = tolerance * own.norm() * (own.norm() + sum(term.norm() for term in terms))
        assert gradient @ own >= own @ own - rounding


@pytest.mark.parametrize("rho", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("terms", [1, 2, 5])
@pytest.mark.parametrize("seed", range(20))
def test_cap_leaves_at_least_its_part_of_the_segmentation_loss(seed, terms, rho):
    parts, segmentation, term_gradients = random_case(seed, terms)
    balance(parts, term_gradients, "cap", rho)
    for _, gradient, own, _ in halves(parts, segmentation, term_gradients):
        assert gradient @ own >= (1 - terms * rho) * (own @ own) * (1 + 1e-12) - 1e-12
        assert (gradient - own).norm() <= terms * rho * own.norm() * (1 + 1e-12)


@pytest.mark.parametrize("terms", [1, 4])
def test_caps_guarantee_is_met_exactly_by_opposite_terms(terms):
    """So that the inequality cannot be made tighter."""
    [parameter] = parameters_of([3.0, 4.0])
    balance({"all": [parameter]}, {str(i): tensors([-30.0, -40.0]) for i in range(terms)}, "cap", 0.2)
    assert parameter.grad.tolist() == pytest.approx([3 * (1 - 0.2 * terms), 4 * (1 - 0.2 * terms)])


@pytest.mark.parametrize("choice", CHOICES)
def test_a_huge_rho_and_parallel_terms_give_the_plain_sum(choice):
    parts, segmentation, _ = random_case(0)
    term_gradients = {name: [factor * value for value in segmentation] for name, factor in (("t", 7.0), ("u", 0.01))}
    record = balance(parts, term_gradients, choice, 1e9)
    for _, gradient, own, terms in halves(parts, segmentation, term_gradients):
        torch.testing.assert_close(gradient, own + sum(terms), rtol=1e-12, atol=0)
    torch.testing.assert_close(record.share, torch.ones_like(record.share))


def test_cap_with_a_huge_rho_is_the_plain_sum_of_any_terms():
    parts, segmentation, term_gradients = random_case(1)
    balance(parts, term_gradients, "cap", 1e9)
    for _, gradient, own, terms in halves(parts, segmentation, term_gradients):
        torch.testing.assert_close(gradient, own + sum(terms), rtol=1e-12, atol=1e-12)


# Zeros, missing paths, values that are not finite


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("zero", [0.0, 1e-14])
def test_a_gradient_of_nothing_adds_nothing(choice, zero):
    """A term without one has no share either: a compiled network gives zeros where an eager one gives None."""
    for segmentation, term in (([3.0, 4.0], [zero, 0.0]), ([zero, 0.0], [3.0, 4.0]), ([zero, zero], [zero, 0.0])):
        [parameter] = parameters_of(segmentation)
        record = balance({"all": [parameter]}, {"t": tensors(term)}, choice, 1e20)
        assert parameter.grad.tolist() == segmentation
        values = [record.share.item(), record.ratio.item(), record.cosine.item()]
        assert values == pytest.approx([0, 0, 0] if term[0] == 3 else [NAN, NAN, NAN], nan_ok=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("choice", CHOICES)
def test_a_term_without_a_path_into_a_part_is_left_out(choice, dtype):
    """It neither changes the part's gradient nor the others' shares, and its numbers there are NaN."""
    parameters = parameters_of([3.0, 4.0], [1.0, 0.0], dtype=dtype)
    term_gradients = {
        "t": tensors(None, [0.0, 1.0], dtype=dtype),
        "u": tensors([6.0, 8.0], [0.5, 0.0], dtype=dtype),
    }
    record = balance({"a": parameters[:1], "b": parameters[1:]}, term_gradients, choice, 0.5)
    for values in (record.share, record.ratio, record.cosine):
        assert values.isnan().tolist() == [[True, False], [False, False]]
    assert record.share[0, 1].item() == pytest.approx(0.25)
    assert parameters[0].grad.tolist() == pytest.approx([4.5, 6.0])


def test_parts_that_no_term_reaches_keep_their_gradients_bit_for_bit():
    parameters = parameters_of([0.1, -0.0], None)
    record = balance({"a": parameters}, {"t": tensors(None, None)}, "project", 0.5)
    assert math.copysign(1, parameters[0].grad[1].item()) == -1
    assert parameters[1].grad is None
    assert record.share.isnan().all()


@pytest.mark.parametrize("choice", CHOICES)
def test_parameters_that_only_a_term_reaches_get_their_share(choice):
    """As with the sum of the losses; a parameter that nothing reaches keeps None, which optimizers pass over."""
    parameters = parameters_of([3.0, 4.0], None, None)
    record = balance({"a": parameters}, {"t": tensors([6.0, 8.0], [10.0, 0.0], None)}, choice, 0.5)
    assert parameters[1].grad.tolist() == pytest.approx([10 * record.share.item(), 0])
    assert record.share.item() > 0
    assert parameters[2].grad is None


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), NAN])
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("segmentation", [[3.0, 4.0], [0.0, 0.0], [0.0, 4.0]])
def test_a_term_that_is_not_finite_makes_the_gradient_not_finite(segmentation, choice, value):
    [parameter] = parameters_of(segmentation)
    balance({"all": [parameter]}, {"t": tensors([1.0, 1.0]), "u": tensors([value, 1.0])}, choice, 0.3)
    assert not parameter.grad.isfinite().all()


@pytest.mark.parametrize("choice", CHOICES)
def test_a_segmentation_gradient_that_is_not_finite_stays_so(choice):
    for value in (float("inf"), NAN):
        [parameter] = parameters_of([value, 1.0])
        balance({"all": [parameter]}, {"t": tensors([1.0, 1.0])}, choice, 0.3)
        assert not parameter.grad.isfinite().all()


@pytest.mark.parametrize("choice", CHOICES)
def test_grad_scaler_skips_a_step_with_an_infinite_term_and_only_that(choice):
    [parameter] = parameters_of([0.0, 0.0], dtype=torch.float32)
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scales, weights = [], []
    for value in (1.0, float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(parameter @ torch.tensor([1.0, 0.0])).backward()
        balance({"all": [parameter]}, {"t": tensors([4.0, value], dtype=torch.float32)}, choice, 0.3)
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        weights.append(parameter.tolist())
    assert scales == [4.0, 2.0, 2.0]
    assert weights[0] == weights[1] != [0.0, 0.0]
    assert weights[2] != weights[1]


@pytest.mark.parametrize("choice", CHOICES)
def test_shares_do_not_depend_on_the_loss_scale(choice):
    records = []
    for scale in (1.0, 65536.0):
        parts, _, term_gradients = random_case(3, dtype=torch.float32)
        for parameter in (*parts["a"], *parts["b"]):
            parameter.grad *= scale
        scaled = {name: [scale * value for value in values] for name, values in term_gradients.items()}
        records.append(balance(parts, scaled, choice, 0.3))
    assert torch.equal(records[0].share, records[1].share)


def test_gradients_of_another_number_than_parameters_are_refused():
    for gradients in ([1.0, 0.0], [1.0, 0.0], [1.0, 0.0]), ([1.0, 0.0],):
        with pytest.raises((AssertionError, ValueError)):
            balance({"all": parameters_of([3.0, 4.0], [3.0, 4.0])}, {"t": tensors(*gradients)}, "cap", 0.5)


@pytest.mark.parametrize("choice", CHOICES)
def test_no_value_is_read_back_from_the_device(choice):
    """Fake tensors have no values: reading one raises."""
    with FakeTensorMode():
        parameters = [nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(2))]
        for parameter in parameters[:2]:
            parameter.grad = torch.ones_like(parameter)
        term_gradients = {"t": [torch.ones(3, 2), None, torch.ones(2)], "u": [None, None, None]}
        record = balance({"a": parameters[:1], "b": parameters[1:]}, term_gradients, choice, 0.3)
        assert record.share.shape == (2, 2)
        with pytest.raises(DataDependentOutputException):
            record.share[0, 0].item()


# The parts of a network


@pytest.mark.parametrize(("name", "stem"), [(PLAIN, []), (RESIDUAL, ["encoder.stem"])])
@pytest.mark.parametrize("kind", ["2d", "anisotropic"])
def test_parts_of_nnunets_networks(kind, name, stem):
    """Every parameter once, though the decoder holds the encoder as well."""
    network = build_network(narrow_architecture(kind, 4, name=name), 1, 3)
    parts = group_parameters(network)
    assert list(parts) == [*stem, *(f"encoder.stages.{stage}" for stage in range(4)), "decoder"]
    grouped = [id(parameter) for parameters in parts.values() for parameter in parameters]
    assert len(set(grouped)) == len(grouped)
    assert set(grouped) == {id(parameter) for parameter in network.parameters()}
    stages = {id(parameter) for parameter in network.encoder.stages[2].parameters()}
    assert {id(parameter) for parameter in parts["encoder.stages.2"]} == stages


def test_parts_of_other_networks_and_frozen_parameters():
    network = nn.ModuleDict({"encoder": nn.ModuleDict({"body": nn.Linear(2, 2)}), "head": nn.Linear(2, 2)})
    network["head"].bias.requires_grad_(False)
    parts = group_parameters(network)
    assert {name: len(parameters) for name, parameters in parts.items()} == {"encoder": 2, "head": 1}


# One step in the order of the docstring


@pytest.mark.parametrize("choice", CHOICES)
def test_a_step_of_a_real_network(choice):
    """A feature term without a path to the decoder and a term of the final map, in the order of `balance`."""
    torch.manual_seed(0)
    network = build_network(architecture("2d", 3, features=[4, 6, 8]), 1, 2)
    parts = group_parameters(network)
    parameters = [parameter for group in parts.values() for parameter in group]
    image = torch.randn(2, 1, *patch_for("2d", 3))
    maps = []
    network.encoder.stages[1].register_forward_hook(lambda module, inputs, output: maps.append(output))

    def losses():
        maps.clear()
        logits = network(image)
        return logits[0].square().mean(), {"feature": maps[0].abs().mean(), "final": 50 * logits[0][:, 0].mean()}

    segmentation, terms = losses()
    alone = torch.autograd.grad(segmentation, parameters, allow_unused=True)
    segmentation, terms = losses()
    term_gradients = {
        name: torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        for name, term in terms.items()
    }
    segmentation.backward()
    for parameter, gradient in zip(parameters, alone, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient), "the terms' gradients leave it alone"
    record = balance(parts, term_gradients, choice, 0.3)
    assert record.share.isnan().tolist() == [[False, False], [False, False], [True, False], [True, False]]
    assert record.share[~record.share.isnan()].le(1).all()
    assert record.share[:, 1].lt(1).all(), "50 times the map outweighs the segmentation loss"
    before = {id(parameter): gradient for parameter, gradient in zip(parameters, alone, strict=True)}
    for name, group in parts.items():
        used = [parameter for parameter in group if before[id(parameter)] is not None]
        now, own = flat([parameter.grad for parameter in used]), flat([before[id(parameter)] for parameter in used])
        assert (now - own).norm() <= 2 * 0.3 * own.norm() * 1.0001, name
        if choice != "cap":
            assert now @ own >= own @ own * (1 - 1e-5), name
