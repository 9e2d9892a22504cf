"""The Dice coefficient of two masks."""

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
