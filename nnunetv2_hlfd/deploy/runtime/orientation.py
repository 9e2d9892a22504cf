"""Where the axes of an image's voxels point to, in three letters such as LPS: to the left, posterior, superior."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))  # to lower and to higher coordinates of DICOM, x, y and z


def of_direction(direction: Sequence[float]) -> str | None:
    """Name the orientation of SimpleITK's direction cosines, in DICOM's coordinates; None in 2d."""
    return _letters(np.reshape(direction, (3, 3))) if len(direction) == 9 else None


def of_affine(affine: NDArray[np.floating]) -> str | None:
    """Name the orientation of a NIfTI affine, whose coordinates point to right, anterior and superior."""
    return _letters(np.diag((-1, -1, 1)) @ affine[:3, :3])


def _letters(axes: NDArray[np.floating]) -> str | None:
    """Name the axis of the body that each column is closest to; None where two columns share one."""
    cosines = axes / np.maximum(np.linalg.norm(axes, axis=0), 1e-12)
    closest = np.abs(cosines).argmax(axis=0)
    if len(set(closest.tolist())) < 3:
        return None
    return "".join(_LETTERS[axis][int(cosines[axis, column] > 0)] for column, axis in enumerate(closest.tolist()))
