"""Codes of final maps: how far decoded probabilities are from the teacher's, and what code 0 means."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from nnunetv2_hlfd.losses.divergence import probabilities
from nnunetv2_hlfd.teacher.stored.encoding import CODE_LIMIT, decode, encode, resize_codes


def logits(channels, scale, size=(4, 24, 24)):
    return scale * torch.randn(channels, *size, generator=torch.Generator().manual_seed(channels))


def restored(maps, temperature, *, regions):
    """Probabilities before and after the codes, (1, K, z, y, x) each."""
    codes = encode(maps, regions)
    assert codes.dtype == torch.uint8
    assert codes.shape == maps.shape
    decoded = decode(codes[None].float(), regions)
    return probabilities(maps[None], temperature, regions), probabilities(decoded, temperature, regions)


@pytest.mark.parametrize(
    ("channels", "temperature", "largest", "mean"),
    [(2, 1, 0.024, 2e-3), (3, 1, 0.024, 2e-3), (3, 4, 0.007, 2e-3), (118, 1, 0.024, 2e-4), (118, 4, 0.02, 1e-4)],
)
def test_probabilities_of_labels_at_any_temperature(channels, temperature, largest, mean):
    expected, got = restored(logits(channels, 5.0), temperature, regions=False)
    error = (got - expected).abs()
    assert error.max() < largest
    assert error.mean() < mean
    torch.testing.assert_close(got.sum(dim=1), torch.ones(1, *got.shape[2:]))


@pytest.mark.parametrize(("temperature", "largest"), [(1, 0.024), (4, 0.007)])
def test_probabilities_of_regions_at_any_temperature(temperature, largest):
    expected, got = restored(logits(2, 6.0), temperature, regions=True)
    assert (got - expected).abs().max() < largest


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_enormous_logits_are_certain(regions, dtype):
    maps = torch.tensor([6e4, -6e4, 0.0]).view(3, 1, 1, 1).to(dtype)
    _, got = restored(maps, 1.0, regions=regions)
    assert got.isfinite().all()
    assert got.flatten().tolist() == pytest.approx([1, 0, 0.5 if regions else 0], abs=0.024)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_code_zero_is_background(temperature):
    """What nnU-Net pads with is the least probable foreground that can be stored."""
    labels = probabilities(decode(torch.zeros(1, 3, 2, 2), regions=False), temperature, regions=False)
    expected = torch.tensor([0.0, -CODE_LIMIT, -CODE_LIMIT]).div(temperature).softmax(dim=0)
    torch.testing.assert_close(labels[0, :, 0, 0], expected)
    regions = probabilities(decode(torch.zeros(1, 2, 2, 2), regions=True), temperature, regions=True)
    assert regions.max() < 0.003


def test_certain_background_is_stored_as_zeros_and_as_nothing_else():
    certain = torch.tensor([30.0, 0.0, -5.0]).view(3, 1, 1, 1)
    assert encode(certain, regions=False).flatten().tolist() == [0, 0, 0]
    assert encode(-certain, regions=False).count_nonzero() == 3


def test_what_interpolation_overshoots_is_no_other_map():
    codes = torch.tensor([0.0, 255.0]).view(1, 2, 1)
    for regions in (False, True):
        assert torch.equal(
            decode(codes * 1.0000001 + torch.tensor([-1e-4, 1e-4]).view(1, 2, 1), regions), decode(codes, regions)
        )


@pytest.mark.parametrize("regions", [False, True])
def test_on_a_coarser_grid_probabilities_are_means(regions):
    maps = logits(3, 5.0, (4, 6, 6))
    [expected] = functional.avg_pool3d(probabilities(maps[None], 1, regions), 2)
    codes = resize_codes(encode(maps, regions).numpy(), (2, 3, 3), regions)
    [got] = probabilities(decode(torch.from_numpy(codes)[None].float(), regions), 1, regions)
    assert (got - expected).abs().max() < 0.04


def test_background_for_certain_stays_so_on_a_coarser_grid():
    codes = resize_codes(np.zeros((3, 4, 6, 6), np.uint8), (2, 3, 3), regions=False)
    assert codes.shape == (3, 2, 3, 3)
    assert not codes.any()
