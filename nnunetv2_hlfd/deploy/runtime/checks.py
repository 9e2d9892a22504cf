"""Whether image files are whole, and their voxels numbers. Libraries read much that is not, and say nothing."""

import itertools
import math
import zlib
from collections.abc import Callable
from pathlib import Path

import SimpleITK

from .errors import UserError, last_line
from .nifti_file import check_nifti, is_nifti

_GIPL_HEADER = 256  # bytes
_BLOCK = 2**20
_PNG_END = b"IEND\xaeB`\x82"


def check_complete(file: Path) -> None:
    """Check that a file is whole, as far as the library that reads its format does not.

    Raises:
        UserError: for a damaged file.
    """
    if is_nifti(file):
        check_nifti(file)
    elif (is_whole_format := _CHECKS.get(file.suffix.lower())) and not is_whole_format(file):
        raise UserError(f"{file.name} is truncated")


def check_image(file: Path) -> None:
    """Check that an image is whole, and of a NIfTI file that no voxel is NaN or infinite: SimpleITK makes them 0.

    Raises:
        UserError: for a damaged file, or such voxels.
    """
    if is_nifti(file):
        check_nifti(file, finite=True)
    else:
        check_complete(file)


def check_segmentation(file: Path, read: Callable[[Path], object]) -> None:
    """Check that a segmentation is there and whole.

    Args:
        file: to check.
        read: reads it; its error is taken for damage. Not called for NIfTI files, which `check_complete` has read.

    Raises:
        UserError: naming the file.
    """
    if not file.is_file():
        raise UserError(f"{file.name} is missing")
    check_complete(file)
    if not is_nifti(file):
        try:
            read(file)
        except Exception as error:  # each library has kinds of its own
            raise UserError(f"{file.name} is damaged: {last_line(error)}") from error


def is_whole(file: Path, read: Callable[[Path], object]) -> bool:
    """Return whether a segmentation passes `check_segmentation`."""
    try:
        check_segmentation(file, read)
    except (UserError, OSError, RuntimeError):
        return False
    return True


def _is_whole_gipl(file: Path) -> bool:
    """SimpleITK makes up the voxels that a truncated one lacks."""
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    voxel = SimpleITK.Image([1] * reader.GetDimension(), reader.GetPixelID(), reader.GetNumberOfComponents())
    voxels = math.prod(reader.GetSize()) * SimpleITK.GetArrayViewFromImage(voxel).nbytes
    return file.stat().st_size >= _GIPL_HEADER + voxels


def _is_whole_nrrd(file: Path) -> bool:
    """Whether the voxels, if they are compressed by gzip, end with their checksum."""
    with file.open("rb") as opened:
        header = b"".join(itertools.takewhile(lambda line: bytes(line).strip(), opened))
        if b"\nencoding: gz" not in header or b"\ndata file:" in header:
            return True
        stream = zlib.decompressobj(wbits=31)
        while not stream.eof and (block := opened.read(_BLOCK)):
            stream.decompress(block)
        return stream.eof


def _is_whole_png(file: Path) -> bool:
    return _PNG_END in file.read_bytes()


def _is_whole_bmp(file: Path) -> bool:
    with file.open("rb") as opened:
        return file.stat().st_size >= int.from_bytes(opened.read(6)[2:], "little")


_CHECKS = {".gipl": _is_whole_gipl, ".nrrd": _is_whole_nrrd, ".png": _is_whole_png, ".bmp": _is_whole_bmp}
