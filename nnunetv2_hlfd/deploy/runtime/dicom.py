"""DICOM series as volumes, through SimpleITK."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from .errors import UserError

_MAGIC = b"DICM"  # after a preamble of 128 bytes
_POSITION, _ORIENTATION = "0020|0032", "0020|0037"
_TOLERANCE = 0.01  # of the distance of slices


@dataclass(frozen=True)
class Series:
    """One DICOM series.

    Attributes:
        files: in the order of their slices.
    """

    files: tuple[Path, ...]


def find_series(folder: Path, channels: int, output: Path) -> dict[tuple[str, int], Series]:
    """Find the DICOM series in a folder and the folders in it: (name of the case, channel) -> series.

    A case has the name of the folder that its series lies in, after those of the folders between that one and the
    given one. Of several series in one folder, each is a case with a number. A folder CASE_0001 holds channel 1 of
    CASE, where a case has as many channels.

    Raises:
        UserError: where two series have one name.
    """
    found: dict[tuple[str, int], Series] = {}
    for place in (folder, *sorted(path for path in folder.rglob("*") if path.is_dir())):
        if place == output or output in place.parents:
            continue
        listed = _series_of(place)
        name = "_".join(place.relative_to(folder).parts) or place.resolve().name
        match = re.fullmatch(r"(.+)_(\d{4})", name)
        case, channel = (match[1], int(match[2])) if match and int(match[2]) < channels else (name, 0)
        for number, series in enumerate(listed, start=1):
            key = f"{case}_{number}" if len(listed) > 1 else case, channel
            if key in found:
                raise UserError(
                    f"Expected folders whose series have names of their own, got two for {key[0]} ({place})."
                )
            found[key] = series
    return found


def _series_of(folder: Path) -> list[Series]:
    if not any(_is_dicom(file) for file in folder.iterdir() if file.is_file()):
        return []
    reader = SimpleITK.ImageSeriesReader
    with _quiet():
        return [
            Series(tuple(Path(file) for file in reader.GetGDCMSeriesFileNames(str(folder), identifier)))
            for identifier in reader.GetGDCMSeriesIDs(str(folder))
        ]


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(128 + len(_MAGIC))[128:] == _MAGIC


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out GDCM's warnings, of files that are no images."""
    before = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(before)


def write_volume(series: Series, folder: Path, channel: int) -> Path:
    """Write a series as a NIfTI file that every reader of volumes reads; returns its path.

    Raises:
        UserError: where its slices make no volume: some are missing, doubled, turned or shifted against each other.
        Exception: where SimpleITK cannot read it.
    """
    file = folder / f"{series.files[0].parent.name}_{channel:04d}.nii"
    SimpleITK.WriteImage(_read(series), str(file))
    return file


def _read(series: Series) -> SimpleITK.Image:
    with _quiet():
        if len(series.files) == 1:
            return SimpleITK.ReadImage(str(series.files[0]))
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames([str(file) for file in series.files])
        reader.MetaDataDictionaryArrayUpdateOn()
        image = reader.Execute()
    headers = [
        {
            key: reader.GetMetaData(number, key)
            for key in (_POSITION, _ORIENTATION)
            if reader.HasMetaDataKey(number, key)
        }
        for number in range(len(series.files))
    ]
    if any(len(header) < 2 for header in headers):
        raise UserError("the DICOM series does not say where its slices lie (image position and orientation)")
    _check_slices(
        np.array([_numbers(header[_POSITION]) for header in headers]),
        np.array([_numbers(header[_ORIENTATION]) for header in headers]),
    )
    return image


def _check_slices(positions: NDArray[np.float64], orientations: NDArray[np.float64]) -> None:
    """Check that slices at these positions (N, 3) in mm, with these axes of their rows (N, 6), make a volume."""
    if not np.allclose(orientations, orientations[0], atol=1e-3):
        raise UserError("the slices of the DICOM series have different orientations")
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    steps = np.diff(positions, axis=0)
    gaps = steps @ normal
    distance = float(np.median(np.abs(gaps)))
    if np.abs(gaps).min() <= _TOLERANCE * distance:
        raise UserError("the DICOM series has several slices at one place, as of several phases or echoes")
    if np.abs(np.abs(gaps) - distance).max() > _TOLERANCE * distance + 1e-3:
        raise UserError(
            f"slices of the DICOM series are missing: they are {np.abs(gaps).min():.3g} to {np.abs(gaps).max():.3g} mm "
            f"apart"
        )
    if np.abs(steps - np.outer(gaps, normal)).max() > _TOLERANCE * distance + 1e-2:
        raise UserError("the slices of the DICOM series are shifted against each other, as with a tilted gantry")


def _numbers(text: str) -> Sequence[float]:
    return [float(number) for number in text.split("\\")]
