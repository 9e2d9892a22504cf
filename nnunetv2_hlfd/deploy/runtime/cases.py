"""The cases of a folder, in files or in DICOM series, and the images there that belong to none."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .description import Description
from .dicom import Series, find_series, write_volume
from .errors import UserError
from .hidden_folder import hidden_folder
from .images import match_files

_IMAGES = (
    *(".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".img", ".gipl", ".gipl.gz", ".dcm", ".ima"),
    *(".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff"),
)
_NAMED = 3  # files in a message


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case.

    Attributes:
        channels: number of a channel -> its file, or its series.
    """

    channels: Mapping[int, Path | Series]

    @property
    def series(self) -> Series | None:
        """Of the first channel, where it is one."""
        first = self.channels[min(self.channels)]
        return None if isinstance(first, Path) else first

    @contextmanager
    def files(self) -> Iterator[list[Path]]:
        """Hand out the image files in the order of the channels; series are made files for as long as the block lasts.

        Raises:
            UserError: for missing channels, or a series that is no volume.
        """
        numbers = sorted(self.channels)
        if numbers != list(range(len(numbers))):
            listed = ", ".join(f"_{number:04d}" for number in numbers)
            raise UserError(f"expected channels from _0000 on without gaps, got {listed}")
        with hidden_folder(Path(tempfile.gettempdir())) as temporary:
            yield [
                channel if isinstance(channel, Path) else write_volume(channel, temporary, number)
                for number, channel in sorted(self.channels.items())
            ]


def find_all(folder: Path, model: Description, output: Path) -> tuple[dict[str, Case], list[Path]]:
    """Find the cases of a folder, by their names, and the image files that belong to none of them.

    Args:
        folder: with files CASE_0000, or folders with DICOM series at any depth.
        model: tells the file ending.
        output: whose files are not looked at, should it lie in the folder.

    Raises:
        UserError: where there is no case, or two have one name.
    """
    channels: dict[str, dict[int, Path | Series]] = {}
    if not folder.is_dir():
        raise UserError(f"Expected a folder with images, no folder {folder}.")
    for case, files in match_files(folder, model.file_ending).items():
        channels[case] = {_number(file, model.file_ending): file for file in files}
    used = {file for case in channels.values() for file in case.values()}
    for (case, number), series in find_series(folder, model.channels, output).items():
        if not model.reader.startswith(("SimpleITK", "Nibabel")):
            raise UserError(f"DICOM series are for models of volumes; {model.name} reads {model.file_ending} files.")
        if number in channels.setdefault(case, {}):
            raise UserError(f"Expected one image for each channel, got two for {case}_{number:04d} in {folder}.")
        channels[case][number] = series
        used.update(series.files)
    left_over = [file for file in _images(folder, model.file_ending, output) if file not in used]
    if not channels:
        found = f"only {', '.join(file.name for file in left_over[:_NAMED])}" if left_over else "none"
        raise UserError(
            f"Expected images named CASE_0000{model.file_ending} in {folder}, or folders with DICOM series, "
            f"found {found}."
        )
    return {case: Case(channels=channels[case]) for case in sorted(channels)}, left_over


def _number(file: Path, file_ending: str) -> int:
    return int(file.name.removesuffix(file_ending)[-4:])


def _images(folder: Path, file_ending: str, output: Path) -> Sequence[Path]:
    endings = (file_ending.lower(), *_IMAGES)
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.name.lower().endswith(endings)
        and file.is_file()
        and output not in file.parents
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
