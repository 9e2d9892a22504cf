"""A DICOM series as a scanner writes it."""

import locale
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

AXIAL = (1, 0, 0, 0, 1, 0, 0, 0, 1)


def write_series(
    folder: Path,
    volume: NDArray[np.integer],
    *,
    spacing: Sequence[float] = (0.8, 0.9, 2.5),
    origin: Sequence[float] = (-30.5, 12.25, 7),
    direction: Sequence[float] = AXIAL,
    number: int = 1,
    tags: Mapping[str, str] | None = None,
    left_out: Sequence[int] = (),
) -> SimpleITK.Image:
    """Write (z, y, x) as one file for each slice, the last slice first; returns the volume.

    Args:
        folder: made where it is missing.
        volume: of 16 bits.
        spacing: in mm, x, y, z.
        origin: in mm.
        direction: cosines.
        number: of the series.
        tags: of all slices, beside what is needed.
        left_out: slices that are not written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(volume.astype(np.int16))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    before = locale.setlocale(locale.LC_ALL)
    columns = np.reshape(direction, (3, 3)).T
    for index in range(len(volume)):
        if index in left_out:
            continue
        part = image[:, :, index]
        position = image.TransformIndexToPhysicalPoint((0, 0, index))
        for tag, value in {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.{number}.{index + 1}",
            "0008|0060": "CT",
            "0010|0010": "Phantom^A",
            "0010|0020": "1",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.9",
            "0020|000e": f"1.2.826.0.1.3680043.2.1125.9.{number}",
            "0020|0011": str(number),
            "0020|0013": str(index + 1),
            "0020|0032": "\\".join(f"{value:.6f}" for value in position),
            "0020|0037": "\\".join(f"{value:.6f}" for value in (*columns[0], *columns[1])),
            "0020|0052": "1.2.826.0.1.3680043.2.1125.8",
            "0018|0050": str(spacing[2]),
            "0028|1052": "-1024",
            "0028|1053": "1",
            **(tags or {}),
        }.items():
            part.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"IM{len(volume) - index:04d}.dcm"))
        writer.Execute(part)
    locale.setlocale(locale.LC_ALL, before)  # GDCM leaves C, and Python would then read text as ASCII
    return image
