"""The readers of images that nnU-Net has, under its names for them. Each gives the voxels and geometry of nnU-Net's."""

from importlib import import_module

from ..errors import UserError
from . import itk, natural, nifti, tiff
from .reader import Reader

READERS = {
    "SimpleITKIO": itk.READER,
    "SimpleITKIOWithReorient": itk.REORIENTED,
    "NibabelIO": nifti.READER,
    "NibabelIOWithReorient": nifti.REORIENTED,
    "NaturalImage2DIO": natural.READER,
    "Tiff3DIO": tiff.READER,
}


def find_reader(name: str) -> Reader:
    """Return a reader whose packages are installed.

    Raises:
        UserError: for a name that is not in `READERS`, or with the command that installs what is missing.
    """
    if name not in READERS:
        raise UserError(f"Expected one of the readers {', '.join(READERS)}, got {name}.")
    reader = READERS[name]
    try:
        for package in reader.packages:
            import_module(package)
    except ImportError as error:
        raise UserError(
            f"Images of this model are read by {', '.join(reader.packages)} ({error}): "
            f"pip install {' '.join(reader.packages)}"
        ) from error
    return reader
