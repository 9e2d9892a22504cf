"""The folder of a teacher's stored maps, `{preprocessed data}_teacher_{12 hex}`, beside the preprocessed data.

Never in their folder: nnU-Net takes every file there for a case, and deletes it when it preprocesses anew. The hex says
which teacher made the maps, and how, so that the maps of two teachers never mix.
"""

import glob
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnunetv2_hlfd.distillation.requests import MapRequest
from nnunetv2_hlfd.teacher.stored.dataset import maps_files, write_maps
from nnunetv2_hlfd.teacher.stored.description import Description
from nnunetv2_hlfd.teacher.stored.encoding import CODE_LIMIT, FORMAT
from nnunetv2_hlfd.teacher.stored.fingerprint import case_files, fingerprint, hash_json
from nnunetv2_hlfd.utilities.atomic import atomic_path, write_json, writing
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json, refuse_damage

MAPS_JSON = "maps.json"
_ENTRY = ("shape", "networks", "data", "maps")  # what is written about a case

State = Literal["whole", "missing", "of other data", "damaged"]


class MapsFolder:
    """Maps of the cases that are done, and what each was made from."""

    def __init__(self, path: Path, description: Description, cases: Mapping[str, Mapping[str, Any]]) -> None:
        self.path, self.description, self.cases = path, description, dict(cases)

    @classmethod
    def read(cls, path: Path) -> "MapsFolder":
        """Read maps.json.

        Raises:
            UserError: for a damaged file.
            FileNotFoundError: where there is none.
        """
        content = read_json(path / MAPS_JSON)
        with refuse_damage(path / MAPS_JSON):
            cases = {case: {key: entry[key] for key in _ENTRY} for case, entry in content.pop("cases").items()}
            return cls(path, Description(**content), cases)

    @classmethod
    def for_teacher(cls, data: Path, description: Description) -> "MapsFolder":
        """The folder of a teacher's maps of preprocessed data; nothing is made before the first case is added."""
        path = data.with_name(f"{data.name}_teacher_{description.key}")
        cases = cls.read(path).cases if (path / MAPS_JSON).is_file() else {}
        return cls(path, description, cases)

    def add(
        self,
        case: str,
        codes: NDArray[np.uint8],
        dataset: Any,
        *,
        patch_size: Sequence[int],
        networks: Sequence[int],
        coarse: Sequence[NDArray[np.uint8]] = (),
    ) -> None:
        """Write the maps of a case, and then that they are there.

        Args:
            case: its name.
            codes: (K, z, y, x).
            dataset: nnU-Net's, that the image was read from.
            patch_size: that the maps will be read in.
            networks: which of the teacher's made the map.
            coarse: codes of the coarse maps, in the order of the description.

        Raises:
            UserError: where they cannot be written; what was there before is intact.
        """
        with writing(self.path):
            self.path.mkdir(exist_ok=True)
        files = maps_files(self.path, case, len(coarse))
        for file, values in zip(files, (codes, *coarse), strict=True):
            with writing(file.parent):
                file.parent.mkdir(exist_ok=True)
            with atomic_path(file, library_errors=(RuntimeError,)) as temporary:
                write_maps(temporary, values, patch_size)
        data = fingerprint(case_files(dataset, case))
        entry = dict(zip(_ENTRY, (list(codes.shape[1:]), list(networks), data, fingerprint(files)), strict=True))
        if (self.path / MAPS_JSON).is_file():  # another process may have added cases
            self.cases |= self.read(self.path).cases
        self.cases[case] = entry
        write_json(self.path / MAPS_JSON, {**asdict(self.description), "cases": self.cases})

    def state(self, case: str, dataset: Any) -> State:
        """Whether a student can learn from the maps of a case.

        Args:
            case: its name.
            dataset: nnU-Net's, that the student's image is read from.
        """
        files = maps_files(self.path, case, len(self.description.requests))
        if case not in self.cases or not all(file.is_file() for file in files):
            return "missing"
        if self.cases[case]["data"] != fingerprint(case_files(dataset, case)):
            return "of other data"
        return "whole" if self.cases[case]["maps"] == fingerprint(files) else "damaged"

    def digest(self, cases: Iterable[str]) -> str:
        """SHA-256 that tells whether the maps of these cases are the same."""
        return hash_json([self.description.key, {case: self.cases[case] for case in cases}])


def find_maps(data: Path, teacher_maps: str, hashes: Sequence[str]) -> list[MapsFolder]:
    """Find the maps that a teacher has made of preprocessed data.

    Args:
        data: folder of the preprocessed data.
        teacher_maps: the setting.
        hashes: SHA-256 of the teacher's checkpoints.
    """
    files = sorted(data.parent.glob(f"{glob.escape(data.name)}_teacher_*/{MAPS_JSON}"))
    wanted = (teacher_maps, list(hashes), FORMAT, CODE_LIMIT)
    return [folder for file in files if _identity(folder := MapsFolder.read(file.parent)) == wanted]


def choose_maps(folders: Sequence[MapsFolder], requests: Collection[MapRequest]) -> MapsFolder | None:
    """Of a teacher's maps those with all that is asked for, and with least beside it.

    Returns:
        The first of several that are made alike: they differ in what is not asked for. None where there are none.

    Raises:
        UserError: where several are made with other step sizes or mirroring.
    """
    fitting = [folder for folder in folders if set(requests) <= set(folder.description.coarse)]
    fewest = min((len(folder.description.requests) for folder in fitting), default=0)
    found = [folder for folder in fitting if len(folder.description.requests) == fewest]
    if len({(folder.description.step_size, folder.description.mirroring) for folder in found}) > 1:
        names = ", ".join(sorted(str(folder.path) for folder in found))
        raise UserError(
            f"Expected one folder with maps of this teacher, found {names}: they were made with other step sizes or "
            f"mirroring. Delete all but one."
        )
    return found[0] if found else None


def _identity(folder: MapsFolder) -> tuple[Any, ...]:
    description = folder.description
    return description.teacher_maps, description.hashes, description.format, description.code_limit
