"""nnU-Net's SimpleITKIO and SimpleITKIOWithReorient."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from ..errors import UserError
from ..orientation import of_direction
from .reader import Image, Reader, elsewhere, not_oriented, stack

_ORIENTATION = "RAS"  # to which nnU-Net reorients


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """SimpleITK's, of the grid that the network sees.

    Attributes:
        spacing: in mm.
        origin: in mm.
        direction: cosines.
        orientation: to return to, such as LPS; None: the grid is that of the file.
    """

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    orientation: str | None = None


def _read(files: Sequence[Path]) -> Image:
    images = [SimpleITK.ReadImage(str(file)) for file in files]
    return _image(files, images, images)


def _read_reoriented(files: Sequence[Path]) -> Image:
    images = [SimpleITK.ReadImage(str(file)) for file in files]
    if images[0].GetDimension() != 3:
        raise UserError(f"expected an image of 3 dimensions, got {images[0].GetDimension()} in {files[0].name}")
    orientation = SimpleITK.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(images[-1].GetDirection())
    return _image(files, images, [SimpleITK.DICOMOrient(image, _ORIENTATION) for image in images], orientation)


def _image(
    files: Sequence[Path],
    original: Sequence[SimpleITK.Image],
    images: Sequence[SimpleITK.Image],
    orientation: str | None = None,
) -> Image:
    arrays, spacings = [], []
    for file, image in zip(files, images, strict=True):
        array, spacing = SimpleITK.GetArrayFromImage(image), [abs(size) for size in reversed(image.GetSpacing())]
        if image.GetNumberOfComponentsPerPixel() != 1 or array.ndim not in (2, 3):
            raise UserError(
                f"expected images of 2 or 3 dimensions, got {image.GetDimension()} in {file.name}, with "
                f"{image.GetNumberOfComponentsPerPixel()} numbers for each voxel"
            )
        flat = array.ndim == 2
        arrays.append(array[None, None] if flat else array[None])
        spacings.append([max(spacing) * 999, *spacing] if flat else spacing)
    data, shared_spacing = stack(files, arrays, spacings)
    first = images[0]
    return Image(
        data=data,
        spacing=shared_spacing,
        geometry=Geometry(
            spacing=first.GetSpacing(),
            origin=first.GetOrigin(),
            direction=first.GetDirection(),
            orientation=orientation,
        ),
        warnings=(
            *elsewhere(files, [[*image.GetOrigin(), *image.GetDirection()] for image in images]),
            *not_oriented(files, [_is_oriented(file, image) for file, image in zip(files, original, strict=True)]),
        ),
        orientation=None if orientation else of_direction(first.GetDirection()),
    )


def _is_oriented(file: Path, image: SimpleITK.Image) -> bool:
    """Return whether a NIfTI or NRRD header says how the voxels lie; other formats always do."""
    if image.HasMetaDataKey("qform_code"):
        return any(image.GetMetaData(f"{form}_code") != "0" for form in ("qform", "sform"))
    return not file.name.endswith((".nrrd", ".nhdr")) or image.HasMetaDataKey("NRRD_space")


def _write(labels: NDArray[np.integer], geometry: Geometry, file: Path) -> None:
    image = SimpleITK.GetImageFromArray(labels[0] if len(geometry.spacing) == 2 else labels)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    if geometry.orientation:
        image = SimpleITK.DICOMOrient(image, geometry.orientation)
    SimpleITK.WriteImage(image, str(file), useCompression=True)


READER = Reader(read=_read, write=_write)
REORIENTED = Reader(read=_read_reoriented, write=_write)
