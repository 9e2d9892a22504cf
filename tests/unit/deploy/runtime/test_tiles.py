"""The batched sliding window against nnU-Net's own."""

import itertools

import numpy as np
import pytest
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

from nnunetv2_hlfd.deploy.runtime.tiles import batch_size, gaussian_window, pad_to_patch, predict_tiles, tile_positions

SIZES = [((40, 37, 55), (16, 20, 24)), ((5, 37, 55), (20, 24)), ((16, 20, 24), (16, 20, 24)), ((3, 16, 16), (16, 16))]


@pytest.mark.parametrize(("extents", "patch"), SIZES)
@pytest.mark.parametrize("step", [0.3, 0.5, 1.0])
def test_tiles_are_nnunets(extents, patch, step):
    starts = compute_steps_for_sliding_window(extents[-len(patch) :], patch, step)
    if len(patch) < len(extents):
        starts = [list(range(extents[0])), *starts]
    expected = list(itertools.product(*starts))
    tiles = tile_positions(extents, patch, step)
    assert [tuple(each if isinstance(each, int) else each.start for each in tile[1:]) for tile in tiles] == expected
    assert all(
        each.stop - each.start == extent
        for tile in tiles
        for each, extent in zip(tile[-len(patch) :], patch, strict=True)
    )


@pytest.mark.parametrize("patch", [(16, 20), (33, 64), (16, 20, 24), (28, 256, 256)])
def test_the_window_is_nnunets(patch):
    expected = compute_gaussian(patch, value_scaling_factor=10, dtype=torch.float32, device=torch.device("cpu"))
    ours = gaussian_window(patch)
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-5)
    assert ours.min() > 0


@pytest.mark.parametrize(
    ("shape", "patch"), [((2, 5, 7, 30), (8, 8, 8)), ((1, 3, 7, 30), (9, 40)), ((1, 9, 9, 9), (8, 8, 8))]
)
def test_padding_is_nnunets(shape, patch):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected, inside = pad_nd_image(image, patch, "constant", {"constant_values": 0}, True, None)
    padded, ours = pad_to_patch(image, patch)
    np.testing.assert_array_equal(padded, expected)
    np.testing.assert_array_equal(padded[ours], image)
    np.testing.assert_array_equal(expected[tuple(inside)], image)


def _naive(image, network, tiles, window, mirror_axes):
    """The definition: every tile's mean over its mirrored copies, weighted by the window."""
    total, weight = 0, 0
    for tile in tiles:
        patch = torch.from_numpy(image[tile])[None]
        copies = [axes for n in range(len(mirror_axes) + 1) for axes in itertools.combinations(mirror_axes, n)]
        flipped = [[axis + 2 for axis in axes] for axes in copies]
        logits = sum(torch.flip(network(torch.flip(patch, axes)), axes) for axes in flipped) / len(flipped)
        here = np.zeros((logits.shape[1], *image.shape[1:]))
        here[tile] = logits[0].numpy() * window
        total, weight = total + here, weight + (here[:1] * 0)
        weight[(slice(None), *tile[1:])] += window
    return total / weight


@pytest.mark.parametrize("library", [np, torch])
@pytest.mark.parametrize(("extents", "patch"), SIZES)
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_weighted_mean_of_mirrored_tiles(library, extents, patch, batch, mirrored):
    torch.manual_seed(0)
    convolution = (torch.nn.Conv2d if len(patch) == 2 else torch.nn.Conv3d)(2, 3, 3, padding=1).requires_grad_(False)
    image = np.random.default_rng(0).normal(size=(2, *extents)).astype(np.float32)
    window = gaussian_window(patch)
    tiles = tile_positions(extents, patch, 0.5)
    axes = tuple(range(len(patch))) if mirrored else ()

    def network(batch):
        return convolution(batch) if library is torch else convolution(torch.from_numpy(batch.copy())).numpy()

    to_library = torch.from_numpy if library is torch else np.asarray
    logits = to_library(np.zeros((3, *extents), np.float32))
    predict_tiles(
        to_library(image),
        network,
        tiles,
        into=logits,
        weight=to_library(np.zeros(extents, np.float32)),
        window=to_library(window),
        mirror_axes=axes,
        batch=batch,
        library=library,
    )
    np.testing.assert_allclose(np.asarray(logits), _naive(image, convolution, tiles, window, axes), atol=1e-5)


def test_large_patches_come_one_at_a_time():
    assert batch_size((512, 512)) == 1
    assert batch_size((128, 128)) == 16
    assert batch_size((128, 128, 128)) == 1
