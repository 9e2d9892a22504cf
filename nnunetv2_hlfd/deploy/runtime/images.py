"""Cases in a folder, and their images and segmentations as the model's reader in nnU-Net has them."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .checks import check_image, check_segmentation, is_whole
from .description import Description
from .errors import UserError
from .readers import find_reader
from .readers.reader import Image
from .whole_file import whole_file


def find_cases(folder: Path, file_ending: str) -> dict[str, list[Path]]:
    """Return every case's name with its image files CASE_0000, CASE_0001, ... in order.

    Raises:
        UserError: where there is none.
    """
    cases = match_files(folder, file_ending)
    if not cases:
        raise UserError(f"Expected images named CASE_0000{file_ending} in {folder}, found none.")
    return cases


def match_files(folder: Path, file_ending: str) -> dict[str, list[Path]]:
    """Return the same; nothing where there is none."""
    pattern = re.compile(rf"(.+)_\d{{4}}{re.escape(file_ending)}")
    cases: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := pattern.fullmatch(file.name):
            cases.setdefault(match[1], []).append(file)
    return cases


def read_image(files: Sequence[Path], model: Description) -> Image:
    """Read a case.

    Raises:
        UserError: for missing channels, damaged files, files of different shape or spacing, or voxels that are no
            finite numbers.
        Exception: of any kind, for a file that the reader's library cannot read.
    """
    for file in files:
        check_image(file)
    image = find_reader(model.reader).read(files)
    if len(image.data) != model.channels:
        raise UserError(
            f"expected {model.channels} channels, got {len(image.data)}: {', '.join(file.name for file in files)}"
        )
    if not np.isfinite(image.data).all():
        raise UserError(f"{', '.join(file.name for file in files)}: NaN, or values that are infinite in float32")
    return image


def write_segmentation(labels: NDArray[np.integer], image: Image, file: Path, model: Description) -> None:
    """Write (z, y, x) labels in the image's geometry, whole or not at all.

    Raises:
        UserError: where the file cannot be written.
    """
    reader = find_reader(model.reader)

    def compare(written: Path) -> None:
        if not np.array_equal(reader.read([written]).data[0], labels):
            raise UserError("what was written is read back as something else")

    with whole_file(file) as temporary:
        reader.write(labels, image.geometry, temporary)
        check_segmentation(temporary, compare)  # some libraries write half of a file onto a full disk and say nothing


def is_finished(file: Path, model: Description) -> bool:
    """Return whether a segmentation is there, whole, and can be read."""
    return is_whole(file, lambda written: find_reader(model.reader).read([written]))
