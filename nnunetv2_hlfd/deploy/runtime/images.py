"""Cases in a folder, and images and segmentations as nnU-Net's SimpleITKIO reads and writes them."""

import gzip
import math
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from .errors import UserError
from .whole_file import whole_file


@dataclass(frozen=True, kw_only=True)
class Image:
    """A case's channels (C, z, y, x), their spacing (z, y, x) in mm, and the geometry to write its result with."""

    data: NDArray[np.float32]
    spacing: tuple[float, ...]
    geometry: SimpleITK.Image


def find_cases(folder: Path, file_ending: str) -> dict[str, list[Path]]:
    """Return every case's name with its image files CASE_0000, CASE_0001, ... in order.

    Raises:
        UserError: where there is none.
    """
    pattern = re.compile(rf"(.+)_\d{{4}}{re.escape(file_ending)}")
    cases: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := pattern.fullmatch(file.name):
            cases.setdefault(match[1], []).append(file)
    if not cases:
        raise UserError(f"Expected images named CASE_0000{file_ending} in {folder}, found none.")
    return cases


def check_complete(file: Path) -> None:
    """Check that a NIfTI file holds every voxel that its header promises, and has the right checksum, if any.

    SimpleITK reads a truncated one without a word. Other formats are left to SimpleITK.

    Raises:
        UserError: for a damaged file.
    """
    if not file.name.endswith((".nii", ".nii.gz")):
        return
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            header = opened.read(540)
            size = len(header)
            while block := opened.read(2**20):
                size += len(block)
        complete = size >= _promised_size(header)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f"{file.name} is damaged: {error}") from error
    if not complete:
        raise UserError(f"{file.name} is truncated")


def is_complete(file: Path) -> bool:
    """Return whether an image or segmentation is there and passes `check_complete`."""
    try:
        check_complete(file)
    except UserError:
        return False
    return file.is_file()


def _promised_size(header: bytes) -> int:
    """Compute the bytes of a NIfTI-1 or NIfTI-2 file: where its voxels begin, and their number by their size."""
    order = "<" if header[:4] in (struct.pack("<i", 348), struct.pack("<i", 540)) else ">"
    [kind] = struct.unpack_from(f"{order}i", header)
    if kind == 348:
        dimensions, bits = struct.unpack_from(f"{order}8h", header, 40), struct.unpack_from(f"{order}h", header, 72)[0]
        [start] = struct.unpack_from(f"{order}f", header, 108)
    elif kind == 540:
        dimensions, bits = struct.unpack_from(f"{order}8q", header, 16), struct.unpack_from(f"{order}h", header, 14)[0]
        [start] = struct.unpack_from(f"{order}q", header, 168)
    else:
        raise struct.error("no NIfTI header")
    return int(start) + math.prod(dimensions[1 : dimensions[0] + 1]) * bits // 8


def read_image(files: Sequence[Path], channels: int) -> Image:
    """Read a case.

    Raises:
        UserError: for missing channels, damaged files, or channels of different shape or spacing.
        RuntimeError: for a file that SimpleITK cannot read.
    """
    if len(files) != channels:
        raise UserError(f"expected {channels} channels, got {len(files)}: {', '.join(file.name for file in files)}")
    for file in files:
        check_complete(file)
    images = [SimpleITK.ReadImage(str(file)) for file in files]
    first = images[0]
    for file, image in zip(files, images, strict=True):
        if image.GetSize() != first.GetSize() or image.GetSpacing() != first.GetSpacing():
            raise UserError(f"{file.name} has another shape or spacing than {files[0].name}")
    arrays = [SimpleITK.GetArrayFromImage(image).astype(np.float32) for image in images]
    spacing = tuple(map(abs, reversed(first.GetSpacing())))
    if arrays[0].ndim == 2:
        spacing = (max(spacing) * 999, *spacing)
        arrays = [array[None] for array in arrays]
    if arrays[0].ndim != 3:
        raise UserError(f"expected images of 2 or 3 dimensions, got {arrays[0].ndim} in {files[0].name}")
    return Image(data=np.stack(arrays), spacing=spacing, geometry=first)


def write_segmentation(labels: NDArray[np.integer], image: Image, file: Path) -> None:
    """Write (z, y, x) labels in the image's geometry, whole or not at all.

    Raises:
        UserError: where the file cannot be written.
        RuntimeError: where SimpleITK says so.
    """
    flat = image.geometry.GetDimension() == 2
    result = SimpleITK.GetImageFromArray(labels[0] if flat else labels)
    result.CopyInformation(image.geometry)
    with whole_file(file) as temporary:
        SimpleITK.WriteImage(result, str(temporary), useCompression=True)
        check_complete(temporary)  # SimpleITK writes half of a NIfTI file onto a full disk and says nothing
