"""NIfTI files of other people: read whole, compared, and turned into what nnU-Net reads."""

import itertools
import math
from collections.abc import Collection
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import SimpleITK

from nnunetv2_hlfd.deploy.runtime.errors import last_line
from nnunetv2_hlfd.deploy.runtime.nifti_file import content, is_nifti2, voxels
from nnunetv2_hlfd.utilities.atomic import atomic_path
from nnunetv2_hlfd.utilities.errors import UserError

# Of a voxel, at the corner of the volume that is farthest off. Less is noise of the header: rounded or stored twice.
GEOMETRY_TOLERANCE = 0.1
_INT16 = np.iinfo(np.int16)


def read_volume(file: Path) -> SimpleITK.Image:
    """Read a scalar volume.

    Raises:
        UserError: naming the file, if it cannot be read, is incomplete or no scalar volume.
    """
    try:
        check_content(file)
        volume = SimpleITK.ReadImage(str(file))
    except Exception as error:  # a damaged file can raise anything in whoever reads it
        raise UserError(f"{file.name} cannot be read: {last_line(error)}") from error
    kind = SimpleITK.GetArrayViewFromImage(volume).dtype.kind
    if volume.GetDimension() != 3 or volume.GetNumberOfComponentsPerPixel() != 1 or kind not in "iuf":
        raise UserError(
            f"{file.name}: expected one number for each voxel of 3 dimensions, got {volume.GetPixelIDTypeAsString()} "
            f"in {volume.GetDimension()} dimensions"
        )
    return volume


def check_content(file: Path) -> None:
    """Check that a NIfTI file has every voxel that its header promises, as finite numbers, and the right checksum.

    SimpleITK reads a truncated file without a word and takes 0 for what is no number.

    Raises:
        UserError: if it has not; other kinds of errors for files that are no NIfTI or damaged.
    """
    blocks = content(file)
    beginning = next(blocks, b"")
    image_class = nibabel.Nifti2Image if is_nifti2(beginning) else nibabel.Nifti1Image
    header = image_class.header_class.from_fileobj(BytesIO(beginning))
    dtype, missing = header.get_data_dtype(), math.prod(header.get_data_shape())
    for values in voxels(itertools.chain([beginning], blocks), header.get_data_offset(), dtype):
        if dtype.kind == "f" and not np.isfinite(values[:missing]).all():
            raise UserError("it has values that are no numbers")
        missing -= len(values[:missing])
    if missing:
        raise UserError(f"truncated, {missing} voxels are missing")


def write_volume(volume: SimpleITK.Image, target: Path) -> None:
    """Write a volume whole or not at all, into a folder that is made where it is missing.

    Raises:
        UserError: where it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target, library_errors=(Exception,)) as temporary:  # see check_content
        SimpleITK.WriteImage(volume, str(temporary), useCompression=True)
        check_content(temporary)  # SimpleITK writes half of a file onto a full disk and says nothing


def compare_grids(image: SimpleITK.Image, label: SimpleITK.Image) -> str:
    """Say what differs between the voxel grids of an image and its label; nothing gives an empty text.

    Raises:
        UserError: if it is more than GEOMETRY_TOLERANCE.
    """
    if image.GetSize() != label.GetSize():
        raise UserError(f"the image has {image.GetSize()} voxels, the label {label.GetSize()}")
    pairs = {
        "spacing": (image.GetSpacing(), label.GetSpacing()),
        "origin": (image.GetOrigin(), label.GetOrigin()),
        "direction": (image.GetDirection(), label.GetDirection()),
    }
    different = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if not different:
        return ""
    corners = itertools.product(*((0.0, float(extent)) for extent in image.GetSize()))
    points = [
        [volume.TransformContinuousIndexToPhysicalPoint(corner) for volume in (image, label)] for corner in corners
    ]
    shift = max(math.dist(*pair) for pair in points) / min(image.GetSpacing())
    if not shift <= GEOMETRY_TOLERANCE:  # NaN too
        values = "; ".join(f"{name} {_numbers(one)} and {_numbers(two)}" for name, (one, two) in different.items())
        raise UserError(f"image and label lie {shift:.3g} voxels apart: {values}")
    return f"{', '.join(different)} of the label's header, {shift:.1g} voxels"


def _numbers(values: Collection[float]) -> str:
    return f"({', '.join(f'{value + 0.0:.6g}' for value in values)})"  # + 0.0: no -0


def to_int16(volume: SimpleITK.Image) -> SimpleITK.Image:
    """Round an image to int16; its geometry stays.

    Raises:
        UserError: for intensities out of range.
    """
    values = SimpleITK.GetArrayViewFromImage(volume)
    least, most = values.min(), values.max()
    if least < _INT16.min or most > _INT16.max:
        raise UserError(f"the image's intensities go from {least:g} to {most:g}: no Hounsfield units, or damaged")
    return _by_planes(volume, np.dtype(np.int16))


def to_labels(volume: SimpleITK.Image, allowed: Collection[int]) -> SimpleITK.Image:
    """Convert a label map to uint8; its geometry stays.

    Raises:
        UserError: for values that are none of the allowed ones, and where there is nothing but background.
    """
    values = SimpleITK.GetArrayViewFromImage(volume)
    found = {value for plane in values for value in pd.unique(plane.ravel()).tolist()}
    if unexpected := sorted(found - set(allowed)):
        first = ", ".join(f"{value:g}" for value in unexpected[:5])
        more = f" and {len(unexpected) - 5} more" if len(unexpected) > 5 else ""
        expected = ", ".join(map(str, sorted(allowed)))
        raise UserError(f"the label has unexpected values {first}{more}; expected are {expected}")
    if found == {0}:
        raise UserError("the label is empty")
    return _by_planes(volume, np.dtype(np.uint8))


def _by_planes(volume: SimpleITK.Image, dtype: "np.dtype[np.generic]") -> SimpleITK.Image:
    """Round and convert without a second copy in floating point."""
    values = SimpleITK.GetArrayViewFromImage(volume)
    result = np.empty(values.shape, dtype)
    for target, plane in zip(result, values, strict=True):
        target[...] = np.rint(plane)
    converted = SimpleITK.GetImageFromArray(result)
    converted.CopyInformation(volume)
    return converted
