"""The Dice coefficient of two masks."""

import math

import numpy as np
from numpy.typing import NDArray


def dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Compute 2 |P n G| / (|P| + |G|) of two masks of one shape; NaN where both are empty, as nnU-Net's evaluation.

    >>> dice(np.array([True, True, False]), np.array([True, False, False]))
    0.6666666666666666
    >>> dice(np.array([False]), np.array([False]))
    nan
    """
    size = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / size if size else float("nan")


def dice_or_agreement(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Compute Dice where two empty masks agree: 1 where both are empty, 0 where one is.

    With NaN in the place of 1, a model's mean would leave out the case where it is right, and count it where not.

    >>> dice_or_agreement(np.array([False]), np.array([False]))
    1.0
    """
    value = dice(predicted, truth)
    return 1.0 if math.isnan(value) else value
