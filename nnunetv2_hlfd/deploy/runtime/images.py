"""Cases in a folder, and images and segmentations as nnU-Net's SimpleITKIO reads and writes them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Image:
    """A case's channels (C, z, y, x), their spacing (z, y, x) in mm, and the geometry to write its result with."""

    data: NDArray[np.float32]
    spacing: tuple[float, ...]
    geometry: SimpleITK.Image


def find_cases(folder: Path, file_ending: str) -> dict[str, list[Path]]:
    """Case name to its image files CASE_0000, CASE_0001, ... in order.

    Raises:
        ValueError: where there is none.
    """
    pattern = re.compile(rf"(.+)_\d{{4}}{re.escape(file_ending)}")
    cases: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := pattern.fullmatch(file.name):
            cases.setdefault(match[1], []).append(file)
    if not cases:
        raise ValueError(f"Expected images named CASE_0000{file_ending} in {folder}, found none.")
    return cases


def read_image(files: Sequence[Path], channels: int) -> Image:
    """Read a case.

    Raises:
        ValueError: for missing channels, or channels of different shape or spacing.
        RuntimeError: for a file that SimpleITK cannot read.
    """
    if len(files) != channels:
        raise ValueError(f"expected {channels} channels, got {len(files)}: {', '.join(each.name for each in files)}")
    images = [SimpleITK.ReadImage(str(file)) for file in files]
    first = images[0]
    for file, image in zip(files, images, strict=True):
        if image.GetSize() != first.GetSize() or image.GetSpacing() != first.GetSpacing():
            raise ValueError(f"{file.name} has another shape or spacing than {files[0].name}")
    arrays = [SimpleITK.GetArrayFromImage(image).astype(np.float32) for image in images]
    spacing = tuple(abs(each) for each in reversed(first.GetSpacing()))
    if arrays[0].ndim == 2:
        spacing = (max(spacing) * 999, *spacing)
        arrays = [each[None] for each in arrays]
    if arrays[0].ndim != 3:
        raise ValueError(f"expected images of 2 or 3 dimensions, got {arrays[0].ndim} in {files[0].name}")
    return Image(data=np.stack(arrays), spacing=spacing, geometry=first)


def write_segmentation(labels: NDArray[np.integer], image: Image, file: Path) -> None:
    """Write (z, y, x) labels in the image's geometry. A kill leaves no half of a file under its name."""
    flat = image.geometry.GetDimension() == 2
    result = SimpleITK.GetImageFromArray(labels[0] if flat else labels)
    result.CopyInformation(image.geometry)
    temporary = file.with_name(f".{file.name}")  # keeps the ending, by which SimpleITK chooses the format
    try:
        SimpleITK.WriteImage(result, str(temporary), useCompression=True)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
