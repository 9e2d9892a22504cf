"""Dice and its convention for empty masks."""

import math

import numpy as np
import pytest

from nnunetv2_hlfd.utilities.dice import dice, dice_or_agreement

EMPTY = np.zeros((2, 3), bool)
FULL = np.ones((2, 3), bool)


def test_two_masks_that_overlap():
    half = np.array([[True, True, True], [False, False, False]])
    assert dice(half, FULL) == dice(FULL, half) == pytest.approx(2 * 3 / 9)
    assert dice(half, half) == 1
    assert dice(half, ~half) == 0


def test_false_positives_alone_are_0_and_two_empty_masks_are_no_number():
    assert dice(FULL, EMPTY) == dice(EMPTY, FULL) == 0
    assert math.isnan(dice(EMPTY, EMPTY))


def test_it_is_nnunets_own_number():
    """nnU-Net's evaluation computes it from true positives, false positives and false negatives."""
    from nnunetv2.evaluation.evaluate_predictions import compute_tp_fp_fn_tn

    random = np.random.default_rng(0)
    for share in (0.0, 0.2, 0.9):
        predicted, truth = random.random((2, 8, 9, 10)) < share
        tp, fp, fn, _ = compute_tp_fp_fn_tn(truth, predicted)
        expected = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else math.nan
        assert dice(predicted, truth) == pytest.approx(expected, nan_ok=True)


def test_two_empty_masks_agree_and_a_false_positive_does_not():
    assert dice_or_agreement(EMPTY, EMPTY) == dice_or_agreement(FULL, FULL) == 1
    assert dice_or_agreement(FULL, EMPTY) == dice_or_agreement(EMPTY, FULL) == 0
