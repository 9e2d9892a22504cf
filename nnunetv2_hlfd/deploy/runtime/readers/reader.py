"""What a reader of images is, and what all of them have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError


@dataclass(frozen=True, kw_only=True)
class Image:
    """A case.

    Attributes:
        data: channels (C, z, y, x).
        spacing: (z, y, x) in mm.
        geometry: what the reader's `write` needs to put a segmentation in its place.
        warnings: what nnU-Net predicts nevertheless, but a person should look at.
        orientation: of the voxel axes of the file, such as LPS; None where it is not known or does not matter.
    """

    data: NDArray[np.float32]
    spacing: tuple[float, ...]
    geometry: Any = None
    warnings: tuple[str, ...] = ()
    orientation: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One of nnU-Net's readers without nnU-Net.

    Attributes:
        read: the files of one case to its image. A file may hold several channels.
        write: labels (z, y, x), `Image.geometry` and a path; files that belong to it are written beside it.
        packages: that it needs beside SimpleITK; they are installed under the names they are imported by.
    """

    read: Callable[[Sequence[Path]], Image]
    write: Callable[[NDArray[np.integer], Any, Path], None]
    packages: tuple[str, ...] = ()


def stack(
    files: Sequence[Path], arrays: Sequence[NDArray[Any]], spacings: Sequence[Sequence[float]]
) -> tuple[NDArray[np.float32], tuple[float, ...]]:
    """Put the channels of a case's files together; returns them (C, z, y, x) and their spacing.

    Args:
        files: named in messages.
        arrays: of each file, (C, z, y, x).
        spacings: of each file, (z, y, x) in mm.

    Raises:
        UserError: for files of different shape or spacing, compared as nnU-Net does.
    """
    for file, array, spacing in zip(files, arrays, spacings, strict=True):
        if array.shape != arrays[0].shape or not np.allclose(spacings[0], spacing):
            raise UserError(
                f"{file.name} has another shape or spacing than {files[0].name}: {array.shape[1:]} voxels of "
                f"{tuple(spacing)} mm, expected {arrays[0].shape[1:]} of {tuple(spacings[0])}"
            )
    return np.concatenate(arrays, dtype=np.float32, casting="unsafe"), tuple(map(float, spacings[0]))


def not_oriented(files: Sequence[Path], known: Sequence[bool]) -> tuple[str, ...]:
    """Name the files whose header does not say how the voxels lie in the patient; nnU-Net assumes something."""
    return tuple(
        f"{file.name} does not say how its voxels lie in the patient (orientation)"
        for file, is_known in zip(files, known, strict=True)
        if not is_known
    )


def elsewhere(files: Sequence[Path], places: Sequence[Sequence[float]]) -> tuple[str, ...]:
    """Name the files whose origin or direction is not that of the first; nnU-Net predicts them voxel by voxel."""
    return tuple(
        f"{file.name} has another origin or direction than {files[0].name}"
        for file, place in zip(files, places, strict=True)
        if not np.allclose(places[0], place)
    )
