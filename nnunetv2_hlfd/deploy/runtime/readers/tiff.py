"""nnU-Net's Tiff3DIO: tif in 3d, with the spacing in CASE.json beside it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .reader import Image, Reader, stack


def _read(files: Sequence[Path]) -> Image:
    import tifffile

    arrays = []
    for file in files:
        array = tifffile.imread(file)
        if array.ndim != 3:
            raise UserError(f"expected an image of 3 dimensions, got {array.ndim} in {file.name}")
        arrays.append(array[None])
    described = files[0].with_name(f"{files[0].stem[: -len('_0000')]}.json")
    spacing, warnings = _spacing(described)
    data, spacing = stack(files, arrays, [spacing] * len(arrays))
    return Image(data=data, spacing=spacing, geometry=spacing, warnings=warnings)


def _spacing(described: Path) -> tuple[tuple[float, ...], tuple[str, ...]]:
    if not described.is_file():
        return (1.0, 1.0, 1.0), (f"no {described.name} with the spacing; 1 mm is assumed",)
    try:
        spacing = tuple(float(size) for size in json.loads(described.read_text(encoding="utf-8"))["spacing"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{described.name}: expected {{"spacing": [z, y, x]}}, got {error!r:.100}') from error
    if len(spacing) != 3 or not min(spacing) > 0:
        raise UserError(f"{described.name}: expected a spacing of 3 numbers above 0, got {spacing}")
    return spacing, ()


def _write(labels: NDArray[np.integer], spacing: tuple[float, ...], file: Path) -> None:
    import tifffile

    tifffile.imwrite(file, labels, compression="zlib")
    file.with_suffix(".json").write_text(json.dumps({"spacing": list(spacing)}), encoding="utf-8")


READER = Reader(read=_read, write=_write, packages=("tifffile",))
