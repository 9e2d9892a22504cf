"""Resampling without SciPy against nnU-Net's own."""

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape, resample_data_or_seg_to_shape

from nnunetv2_hlfd.deploy.runtime.description import Resampling
from nnunetv2_hlfd.deploy.runtime.resample import new_shape, resample

GRIDS = [
    pytest.param((20, 31, 40), (2, 1, 1), (1.3, 0.7, 1.9), id="isotropic, up and down"),
    pytest.param((20, 31, 40), (5, 1, 1), (5, 0.7, 1.9), id="coarse first axis, kept"),
    pytest.param((20, 31, 40), (5, 1, 1), (2, 0.7, 0.7), id="coarse first axis, apart"),
    pytest.param((31, 20, 40), (1, 5, 1), (0.7, 2, 0.7), id="coarse second axis"),
    pytest.param((40, 31, 20), (1, 1, 5), (1, 2, 1), id="coarse last axis"),
    pytest.param((20, 31, 40), (2, 1, 1), (8, 0.7, 0.7), id="the new spacing is the anisotropic one"),
    pytest.param((20, 31, 40), (5, 5, 1), (5, 0.7, 1.9), id="two coarse axes are not apart"),
    pytest.param((7, 8, 9), (1, 1, 1), (3, 3, 3), id="far down"),
    pytest.param((1, 50, 50), (999, 1, 1), (999, 0.5, 0.5), id="one slice"),
    pytest.param((20, 31, 40), (1, 1, 1), (1, 1, 1), id="nothing to do"),
]


@pytest.mark.parametrize(("shape", "spacing", "target"), GRIDS)
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("force", [None, False])
def test_equals_nnunets_resampling(shape, spacing, target, order, force):
    data = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    extents = new_shape(shape, spacing, target)
    assert extents == tuple(compute_new_shape(shape, spacing, target))
    expected = resample_data_or_seg_to_shape(
        data, extents, spacing, target, is_seg=False, order=order, order_z=0, force_separate_z=force
    )
    ours = resample(data, extents, spacing, target, Resampling(order=order, order_z=0, force_separate_z=force))
    np.testing.assert_allclose(ours, expected, atol=5e-6)


def test_a_spline_does_not_overshoot_the_images_range():
    step = np.zeros((1, 1, 8, 8), np.float32)
    step[..., 4:] = 1
    resized = resample(step, (1, 8, 32), (1, 1, 1), (1, 1, 0.25), Resampling(order=3, order_z=0, force_separate_z=None))
    assert resized.min() == 0
    assert resized.max() == 1


def test_the_input_is_left_as_it_was():
    data = np.random.default_rng(0).normal(size=(1, 5, 6, 7)).astype(np.float32)
    before = data.copy()
    resample(data, (9, 9, 9), (1, 1, 1), (0.5, 0.6, 0.7), Resampling(order=3, order_z=0, force_separate_z=None))
    np.testing.assert_array_equal(data, before)


def test_another_order_is_refused():
    with pytest.raises(ValueError, match="Expected spline order 1 or 3, got 2"):
        resample(
            np.zeros((1, 4, 4, 4), np.float32),
            (8, 8, 8),
            (1, 1, 1),
            (0.5, 0.5, 0.5),
            Resampling(order=2, order_z=0, force_separate_z=None),
        )
