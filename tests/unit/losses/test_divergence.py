"""KL(teacher || student) of segmentation maps at a temperature (pixel level, Eq. 3 and 4)."""

import math

import numpy as np
import pytest
import reference.divergence
import reference.grids
import torch

from nnunetv2_hlfd.losses.divergence import kl_divergence, masked_mean, probabilities, valid_cells

KINDS = [pytest.param(False, id="labels"), pytest.param(True, id="regions")]
TEMPERATURES = (1.0, 4.0)


def logits(*shape, seed=0, scale=3.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=scale, size=shape))


def teacher_of(shape, temperature, regions, seed=1):
    return probabilities(logits(*shape, seed=seed), temperature, regions)


def mask(*shape, seed=2):
    return torch.from_numpy(np.random.default_rng(seed).random(shape) < 0.6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("regions", KINDS)
def test_probabilities_equal_the_reference(regions, temperature):
    values = logits(2, 3, 4, 3)
    expected = reference.divergence.probabilities(values.numpy(), temperature, regions)
    np.testing.assert_allclose(probabilities(values, temperature, regions).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 3), (2, 1, 3, 3), (2, 4, 2, 3, 2)], ids=["2d", "2d-one-channel", "3d"])
def test_kl_divergence_equals_the_reference(shape, regions, temperature, masked, dtype, tolerance):
    student, teacher = logits(*shape).to(dtype), teacher_of(shape, temperature, regions).to(dtype)
    valid = mask(shape[0], 1, *shape[2:]) if masked else None
    computed = kl_divergence(student, teacher, temperature=temperature, regions=regions, valid=valid)
    expected = reference.divergence.kl_divergence(
        student.double().numpy(),
        teacher.double().numpy(),
        temperature,
        regions,
        None if valid is None else valid.numpy(),
    )
    assert computed.dtype == dtype
    assert computed.item() == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kl_divergence_by_hand(temperature):
    """p = (3/4, 1/4), q = (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2); one Bernoulli channel gives the same."""
    expected = temperature**2 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    teacher = torch.tensor([0.75, 0.25]).reshape(1, 2, 1, 1)
    labels = kl_divergence(torch.zeros(1, 2, 1, 1), teacher, temperature=temperature)
    region = kl_divergence(torch.zeros(1, 1, 1, 1), teacher[:, :1], temperature=temperature, regions=True)
    assert labels.item() == pytest.approx(expected, rel=1e-6)
    assert region.item() == pytest.approx(expected, rel=1e-6)


def test_the_teacher_is_the_reference_distribution():
    """A class the teacher excludes costs nothing; one that the student excludes and the teacher does not costs much."""
    sure, unsure = torch.tensor([8.0, -8.0]).reshape(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    missed = kl_divergence(sure, unsure.softmax(dim=1), temperature=1.0)
    covered = kl_divergence(unsure, sure.softmax(dim=1), temperature=1.0)
    assert covered.item() == pytest.approx(math.log(2), rel=1e-4)
    assert missed.item() == pytest.approx(8 - math.log(2), rel=1e-4)


@pytest.mark.parametrize("regions", KINDS)
def test_the_factor_t_squared_keeps_the_size_over_high_temperatures(regions):
    """For small logits / T the divergence falls with 1 / T^2, so that T^2 times it tends to a limit."""
    student, teacher = logits(2, 3, 3, 3), logits(2, 3, 3, 3, seed=1)

    def at(temperature):
        return kl_divergence(
            student, probabilities(teacher, temperature, regions), temperature=temperature, regions=regions
        ).item()

    assert at(200.0) == pytest.approx(at(100.0), rel=0.05)
    assert at(100.0) > 0.1


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("regions", KINDS)
def test_student_equal_to_teacher_gives_0_and_no_gradient(regions, temperature):
    student = logits(2, 3, 4, 4).requires_grad_()
    teacher = probabilities(student.detach(), temperature, regions)
    divergence = kl_divergence(student, teacher, temperature=temperature, regions=regions)
    divergence.backward()
    assert divergence.item() == pytest.approx(0, abs=1e-12)
    assert student.grad.abs().max() < 1e-12


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("regions", KINDS)
def test_a_gradient_step_brings_the_student_nearer(regions, temperature, masked):
    student = logits(2, 3, 4, 4).requires_grad_()
    teacher = teacher_of((2, 3, 4, 4), temperature, regions)
    options = {"temperature": temperature, "regions": regions, "valid": mask(2, 1, 4, 4) if masked else None}
    before = kl_divergence(student, teacher, **options)
    before.backward()
    after = kl_divergence(student.detach() - 0.1 * student.grad, teacher, **options)
    assert 0 < after.item() < before.item()


@pytest.mark.parametrize("regions", KINDS)
def test_voxels_that_are_not_valid_change_nothing(regions):
    student, valid = logits(2, 3, 4, 4), mask(2, 1, 4, 4)
    teacher = teacher_of((2, 3, 4, 4), 4.0, regions)
    changed = torch.where(valid, student, 50.0).requires_grad_()
    values = [
        kl_divergence(each, teacher, temperature=4.0, regions=regions, valid=valid) for each in (student, changed)
    ]
    assert values[0].item() == values[1].item()
    values[1].backward()
    assert not changed.grad[~valid.expand_as(changed)].any()
    assert changed.grad[valid.expand_as(changed)].all()


def test_the_mean_is_over_the_valid_voxels_of_the_whole_batch():
    """Samples with one and three valid voxels: four voxels count alike, not two samples."""
    student = torch.zeros(2, 2, 1, 3, dtype=torch.float64)
    teacher = torch.full_like(student, 0.5)
    teacher[0, :, 0, 0] = torch.tensor([1.0, 0.0])  # log 2 here, 0 elsewhere
    valid = torch.tensor([[True, False, False], [True, True, True]]).reshape(2, 1, 1, 3)
    assert kl_divergence(student, teacher, temperature=1.0, valid=valid).item() == pytest.approx(math.log(2) / 4)
    assert kl_divergence(student, teacher, temperature=1.0).item() == pytest.approx(math.log(2) / 6)


@pytest.mark.parametrize("regions", KINDS)
def test_no_valid_voxel_gives_exactly_0_with_a_usable_gradient(regions):
    student = logits(2, 3, 4, 4).requires_grad_()
    valid = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    divergence = kl_divergence(
        student, teacher_of((2, 3, 4, 4), 4.0, regions), temperature=4.0, regions=regions, valid=valid
    )
    divergence.backward()
    assert divergence.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("extreme", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("regions", KINDS)
def test_certain_teachers_and_extreme_students_stay_finite(regions, temperature, extreme, dtype):
    """Probabilities of exactly 0 and 1 against logits that agree and that contradict them."""
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=dtype).reshape(2, 2, 1, 1)
    student = torch.tensor([[1.0, -1.0], [1.0, -1.0]], dtype=dtype).reshape(2, 2, 1, 1).mul(extreme).requires_grad_()
    divergence = kl_divergence(student, teacher, temperature=temperature, regions=regions)
    divergence.backward()
    assert divergence.isfinite()
    assert divergence.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert student.grad.isfinite().all()
    # the second sample is contradicted: -log q = 2 x / T + log(1 + e^(-2 x / T)); regions: two channels of x / T each
    argument = (1 if regions else 2) * extreme / temperature
    agrees, contradicts = math.log1p(math.exp(-argument)), argument + math.log1p(math.exp(-argument))
    channels = 2 if regions else 1
    assert divergence.item() == pytest.approx(temperature**2 * channels * (agrees + contradicts) / 2, rel=1e-2)


def test_masked_mean_leaves_out_even_what_is_not_finite():
    values = torch.tensor([1.0, float("nan"), 4.0, float("inf")], requires_grad=True)
    mean = masked_mean(values, torch.tensor([True, False, True, False]))
    mean.backward()
    assert mean.item() == 2.5
    assert values.grad.tolist() == [0.5, 0, 0.5, 0]
    assert masked_mean(torch.tensor([1.0, 2.0, 6.0]), None).item() == 3


@pytest.mark.parametrize(
    ("source", "size"),
    [
        pytest.param((8, 6), (4, 3), id="2d-divides"),
        pytest.param((7, 5), (3, 2), id="2d-does-not-divide"),
        pytest.param((8, 6), (1, 1), id="2d-one-cell"),
        pytest.param((4, 3), (4, 3), id="2d-same"),
        pytest.param((4, 3), (6, 3), id="2d-finer"),
        pytest.param((4, 8, 8), (4, 4, 2), id="3d-anisotropic"),
        pytest.param((5, 7, 4), (2, 3, 3), id="3d-does-not-divide"),
        pytest.param((3, 2, 4), (3, 2, 4), id="3d-same"),
    ],
)
def test_valid_cells_equal_the_reference(source, size):
    ignored = torch.from_numpy(np.random.default_rng(0).random((3, 1, *source)) < 0.1)
    ignored[0] = False
    computed = valid_cells(ignored, size)
    assert computed.dtype == torch.bool
    np.testing.assert_array_equal(computed.numpy(), reference.grids.valid_cells(ignored.numpy(), size))
    assert computed[0].all()


@pytest.mark.parametrize(("source", "size"), [((8, 8), (4, 4)), ((7, 7), (3, 3)), ((4, 6, 6), (2, 3, 2))])
def test_each_single_ignored_voxel_invalidates_its_cell(source, size):
    for voxel in np.ndindex(*source):
        ignored = torch.zeros(1, 1, *source, dtype=torch.bool)
        ignored[(0, 0, *voxel)] = True
        cell = tuple(place * fine // coarse for place, fine, coarse in zip(voxel, size, source, strict=True))
        valid = valid_cells(ignored, size)
        assert not valid[(0, 0, *cell)]
        assert valid.any()


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("shape", [(2, 3, 2, 2), (1, 2, 2, 1, 2)], ids=["2d", "3d"])
def test_gradcheck(shape, regions, temperature, masked):
    teacher = teacher_of(shape, temperature, regions)
    valid = mask(shape[0], 1, *shape[2:]) if masked else None

    def divergence(values):
        return kl_divergence(values, teacher, temperature=temperature, regions=regions, valid=valid)

    assert torch.autograd.gradcheck(divergence, (logits(*shape).requires_grad_(),))
