"""nnU-Net's NibabelIO and NibabelIOWithReorient, which also read what SimpleITK refuses, such as sheared grids."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..nifti_file import content, is_nifti2
from ..orientation import of_affine
from .reader import Image, Reader, elsewhere, not_oriented, stack


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Of the grid that the network sees.

    Attributes:
        affine: from voxels to mm.
        original: of the file, where it was reoriented.
    """

    affine: NDArray[np.float64]
    original: NDArray[np.float64] | None = None


def _load(file: Path) -> Any:
    import nibabel

    whole = b"".join(content(file))
    image = (nibabel.Nifti2Image if is_nifti2(whole) else nibabel.Nifti1Image).from_bytes(whole)
    if image.ndim != 3:
        raise UserError(f"expected an image of 3 dimensions, got {image.ndim} in {file.name}")
    return image


def _read(files: Sequence[Path]) -> Image:
    images = [_load(file) for file in files]
    return _image(files, images, images)


def _read_reoriented(files: Sequence[Path]) -> Image:
    from nibabel.orientations import io_orientation

    images = [_load(file) for file in files]
    turned = [image.as_reoriented(io_orientation(image.affine)) for image in images]
    return _image(files, images, turned, images[0].affine)


def _image(
    files: Sequence[Path], loaded: Sequence[Any], images: Sequence[Any], original: NDArray[np.float64] | None = None
) -> Image:
    data, spacing = stack(
        files,
        [image.get_fdata(caching="unchanged").transpose(2, 1, 0)[None] for image in images],
        [[float(size) for size in reversed(image.header.get_zooms())] for image in images],
    )
    return Image(
        data=data,
        spacing=spacing,
        geometry=Geometry(affine=images[0].affine, original=original),
        warnings=(
            *elsewhere(files, [image.affine.ravel() for image in images]),
            *not_oriented(files, [_is_oriented(image.header) for image in loaded]),
        ),
        orientation=of_affine(images[0].affine) if original is None else None,
    )


def _is_oriented(header: Any) -> bool:
    return int(header["qform_code"]) != 0 or int(header["sform_code"]) != 0


def _write(labels: NDArray[np.integer], geometry: Geometry, file: Path) -> None:
    import nibabel
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    image = nibabel.Nifti1Image(labels.transpose(2, 1, 0), geometry.affine)
    if geometry.original is not None:
        back = ornt_transform(axcodes2ornt("RAS"), io_orientation(geometry.original))
        image = image.as_reoriented(back)
    nibabel.save(image, file)


READER = Reader(read=_read, write=_write, packages=("nibabel",))
REORIENTED = Reader(read=_read_reoriented, write=_write, packages=("nibabel",))
