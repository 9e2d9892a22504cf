"""What is counted before the work: the grid of an image and nnU-Net's patches of it."""

from types import SimpleNamespace

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_hlfd.compress.duration import grid, number_of_tiles


def model_of(transpose):
    return SimpleNamespace(plans=SimpleNamespace(transpose_forward=list(transpose)))


def test_an_image_is_resampled_on_the_axes_of_the_network():
    assert grid(model_of((1, 0, 2)), [2.0, 1.0, 1.0], [30, 20, 10], [3.0, 4.0, 1.0]) == [40, 90, 10]


def test_slices_of_a_2d_network_stay_as_they_are():
    assert grid(model_of((0, 1, 2)), [0.5, 0.5], [30, 20, 10], [3.0, 1.0, 1.0]) == [30, 40, 20]


@pytest.mark.parametrize(
    ("shape", "patch"),
    [
        ((1, 20, 20), (20, 20)),
        ((7, 50, 33), (20, 16)),
        ((7, 9, 33), (20, 16)),
        ((40, 50, 33), (16, 20, 33)),
        ((4, 4, 4), (8, 8, 8)),
    ],
)
def test_tiles_are_those_of_nnunets_predictor(shape, patch):
    predictor = nnUNetPredictor(allow_tqdm=False, device=torch.device("cpu"))
    predictor.configuration_manager = SimpleNamespace(patch_size=list(patch))
    padded = [*shape[: -len(patch)], *map(max, shape[-len(patch) :], patch)]
    expected = len(predictor._internal_get_sliding_window_slicers(tuple(padded)))
    assert number_of_tiles(patch, shape) == expected
