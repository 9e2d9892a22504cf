"""nnU-Net's NaturalImage2DIO: png, bmp and tif in 2d, gray or with all colors in one file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .reader import Image, Reader, stack

_TIFF = (".tif", ".tiff")  # nnU-Net reads them by tifffile, through scikit-image


def _pixels(file: Path) -> NDArray[Any]:
    """Return (y, x) or (y, x, colors)."""
    if file.suffix.lower() in _TIFF:
        import tifffile

        pixels = tifffile.imread(file)
    else:
        import imageio.v3

        pixels = np.asarray(imageio.v3.imread(file))
    if pixels.ndim == 3 and pixels.shape[-1] not in (3, 4) and pixels.shape[0] in (3, 4):
        pixels = np.moveaxis(pixels, 0, -1)
    return pixels


def _read(files: Sequence[Path]) -> Image:
    arrays = []
    for file in files:
        pixels = _pixels(file)
        if pixels.ndim == 2:
            arrays.append(pixels[None, None])
        elif pixels.ndim == 3 and pixels.shape[-1] in (3, 4):
            arrays.append(np.moveaxis(pixels, -1, 0)[:, None])
        else:
            raise UserError(f"expected gray, RGB or RGBA pixels in 2d, got {pixels.shape} in {file.name}")
    data, spacing = stack(files, arrays, [(999, 1, 1)] * len(arrays))
    return Image(data=data, spacing=spacing)


def _write(labels: NDArray[np.integer], _geometry: None, file: Path) -> None:
    if file.suffix.lower() in _TIFF:
        import tifffile

        tifffile.imwrite(file, labels[0])
    else:
        import imageio.v3

        imageio.v3.imwrite(file, labels[0])


READER = Reader(read=_read, write=_write, packages=("imageio", "tifffile"))
