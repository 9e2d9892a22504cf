"""Resizing: area on axes that shrink, linear on axes that grow, each axis for itself."""

import numpy as np
import pytest
import reference.grids
import torch
from torch.nn import functional

from nnunetv2_hlfd.losses.resize import at_least_float32, resize

SIZES = [
    pytest.param((6, 4), (3, 2), id="2d-shrink-divides"),
    pytest.param((7, 5), (3, 2), id="2d-shrink-does-not-divide"),
    pytest.param((6, 5), (3, 2), id="2d-one-axis-divides"),
    pytest.param((3, 2), (6, 5), id="2d-grow"),
    pytest.param((1, 3), (4, 3), id="2d-grow-from-one-voxel"),
    pytest.param((6, 3), (3, 7), id="2d-one-axis-shrinks-one-grows"),
    pytest.param((3, 7), (5, 3), id="2d-one-axis-grows-one-shrinks-without-dividing"),
    pytest.param((5, 6), (5, 2), id="2d-one-axis-stays"),
    pytest.param((5, 6), (5, 6), id="2d-identity"),
    pytest.param((7, 5), (1, 1), id="2d-to-one-voxel"),
    pytest.param((4, 6, 2), (2, 3, 1), id="3d-shrink-divides"),
    pytest.param((5, 7, 4), (2, 3, 3), id="3d-shrink-does-not-divide"),
    pytest.param((2, 3, 2), (3, 5, 4), id="3d-grow"),
    pytest.param((2, 8, 3), (5, 3, 3), id="3d-grow-shrink-stay"),
    pytest.param((4, 2, 6), (2, 5, 4), id="3d-shrink-grow-shrink"),
    pytest.param((3, 2, 4), (3, 2, 4), id="3d-identity"),
]


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_equals_the_reference(source, target, dtype, tolerance):
    maps = random(2, 3, *source)
    resized = resize(torch.from_numpy(maps).to(dtype), target)
    assert resized.dtype == dtype
    np.testing.assert_allclose(resized.numpy(), reference.grids.resize(maps, target), rtol=0, atol=tolerance)


def test_shrinking_averages_areas_and_growing_interpolates_between_voxel_centers():
    maps = torch.tensor([[[[0.0, 4.0, 8.0, 0.0], [2.0, 6.0, 0.0, 4.0]]]])
    assert resize(maps, (1, 2)).tolist() == [[[[3.0, 3.0]]]]
    assert resize(torch.tensor([[[[0.0, 4.0]]]]), (1, 4)).tolist() == [[[[0.0, 1.0, 3.0, 4.0]]]]
    assert resize(torch.tensor([[[[0.0, 3.0, 6.0]]]]), (1, 2)).tolist() == [[[[1.5, 4.5]]]]  # windows overlap


def test_windows_of_unequal_size_are_those_of_adaptive_pooling():
    """The reference's windows are the documented ones: a second witness beside our own code."""
    maps = random(1, 2, 7, 11)
    pooled = functional.adaptive_avg_pool2d(torch.from_numpy(maps), (3, 4)).numpy()
    np.testing.assert_allclose(reference.grids.area_average(maps, (3, 4)), pooled, atol=1e-12)


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_probabilities_stay_probabilities(source, target):
    p = torch.from_numpy(random(2, 3, *source)).float().mul(20).softmax(dim=1)
    resized = resize(p, target)
    assert resized.min() >= 0
    assert resized.max() <= 1
    np.testing.assert_allclose(resized.sum(dim=1).numpy(), 1, atol=1e-6)


@pytest.mark.parametrize("source", [(n, n + k) for n in (8, 9, 10, 13, 27) for k in (0, 3)])
def test_certain_predictions_do_not_exceed_1_when_shrunk(source):
    """A value above 1 by rounding would have the divergence take the logarithm of a negative number."""
    ones = torch.ones(1, 1, *source)
    assert all(resize(ones, (n, n + 1)).max() <= 1 for n in range(1, 8))


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_is_linear_and_keeps_constants(source, target):
    first, second = (torch.from_numpy(random(1, 2, *source, seed=seed)) for seed in (1, 2))
    torch.testing.assert_close(resize(2 * first - second, target), 2 * resize(first, target) - resize(second, target))
    torch.testing.assert_close(
        resize(torch.full((1, 2, *source), 3.0), target), torch.full((1, 2, *target), 3.0), rtol=1e-6, atol=0
    )


def test_identity_returns_the_maps_themselves():
    maps = torch.rand(1, 2, 4, 5)
    assert resize(maps, maps.shape[2:]) is maps


@pytest.mark.parametrize(
    ("source", "size"), [((4, 4), (2,)), ((4, 4), (2, 2, 2)), ((4, 4, 4), (2, 2)), ((4, 4, 4), ())]
)
def test_a_wrong_number_of_axes_is_refused(source, size):
    maps = torch.zeros(2, 3, *source)
    with pytest.raises(ValueError, match="Expected a size with") as error:
        resize(maps, size)
    assert (
        str(error.value) == f"Expected a size with {len(source)} axes for maps of shape {(2, 3, *source)}, got {size}."
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("source", "target"), [((5, 4), (2, 7)), ((4, 2), (2, 1)), ((2, 3, 4), (3, 2, 2))])
def test_gradient(source, target, dtype):
    """The adjoint: <resize(x), y> = <x, gradient>, with gradients of ones summing to the number of target voxels."""
    maps = torch.from_numpy(random(1, 2, *source)).to(dtype).requires_grad_()
    resize(maps, target).sum().backward()
    assert maps.grad.sum().item() == pytest.approx(2 * np.prod(target), rel=1e-5)
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(lambda each: resize(each, target), (maps,))


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_losses_are_computed_in_float32_or_better(given, computed):
    values = torch.tensor([1.5, -2.0], dtype=given)
    assert at_least_float32(values).dtype == computed
    assert at_least_float32(values).tolist() == [1.5, -2.0]
