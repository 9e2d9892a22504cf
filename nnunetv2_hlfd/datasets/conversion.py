"""From a public data set as it is downloaded to nnU-Net's raw format."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets
from tqdm import tqdm

from nnunetv2_hlfd.datasets.challenge import Challenge, SourceCase
from nnunetv2_hlfd.datasets.locations import raw_folder
from nnunetv2_hlfd.datasets.volumes import compare_grids, read_volume, to_int16, to_labels, write_volume
from nnunetv2_hlfd.utilities.atomic import atomic_path, write_json
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json, refuse_damage
from nnunetv2_hlfd.utilities.lock import locked

REPORT_FILE = "conversion_report.json"
_LABELS = (0, 1, 2)  # background, organ, tumor: in all data sets here


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What came out: the data set's folder, and a row for each case (see REPORT_FILE)."""

    folder: Path
    rows: Sequence[Mapping[str, Any]]

    def names(self, *states: str) -> list[str]:
        """Return the cases with one of these states."""
        return [row["case"] for row in self.rows if row["state"] in states]


def convert(challenge: Challenge, source: Path, dataset: str | None = None, *, regions: bool = False) -> Conversion:
    """Write imagesTr, labelsTr, dataset.json and REPORT_FILE into nnUNet_raw; goes on where it was interrupted.

    Args:
        challenge: what `source` is.
        source: folder of the download.
        dataset: data set ID or name; the challenge's own by default.
        regions: label the organ with its tumors as one region, the tumors as another.

    Raises:
        UserError: for a source without labeled cases, an ID that another data set has, or a folder with other data.
    """
    name = dataset_name(challenge.dataset, dataset)
    cases = challenge.find_cases(source)
    if not any(case.label for case in cases):
        raise UserError(f"Expected {challenge.layout}, found no label in {source}.")
    folder = raw_folder() / name
    with locked(folder, "nnUNetv2_hlfd convert"):
        return _convert_all(challenge, source, cases, folder, regions)


def _convert_all(
    challenge: Challenge, source: Path, cases: Sequence[SourceCase], folder: Path, regions: bool
) -> Conversion:
    rows = _earlier_rows(folder, challenge, cases)
    _write_report(folder, challenge, rows.values())
    for case in tqdm(cases, desc=f"Converting to {folder.name}", unit="case", disable=None):
        rows[case.name] = _row(case, source, folder, rows.get(case.name, {}))
        _write_report(folder, challenge, rows.values())
    conversion = Conversion(folder=folder, rows=[rows[case.name] for case in cases])
    _write_dataset_json(folder, challenge, len(conversion.names("converted", "repaired")), regions)
    return conversion


def dataset_name(default: str, given: str | None) -> str:
    """Return `DatasetXXX_Name` for the ID or name of a data set that is to be made.

    Raises:
        UserError: if it is none, or another data set has its ID.
    """
    given = given or default
    name = f"Dataset{int(given):03d}{default[len('Dataset000') :]}" if given.isdecimal() else given
    if not re.fullmatch(r"Dataset(?!000)\d{3}_[\w.+-]+", name, re.ASCII):
        raise UserError(f"Expected a data set ID from 1 to 999 or a name such as {default}, got '{given}'.")
    others = [str(other) for other in find_candidate_datasets(int(name[7:10])) if other != name]
    if others:
        raise UserError(f"{name} cannot be made: {', '.join(others)} has that ID. Choose another one with -d.")
    return name


def _earlier_rows(folder: Path, challenge: Challenge, cases: Sequence[SourceCase]) -> dict[str, dict[str, Any]]:
    """Return the rows, by case, of an earlier conversion into this folder.

    Raises:
        UserError: if the folder holds anything but this conversion's.
    """
    if not folder.exists() or all(path.name.startswith(".") for path in folder.iterdir()):  # killed at its start
        return {}
    file = folder / REPORT_FILE
    if not file.is_file():
        raise UserError(f"{folder} holds another data set. Choose another ID or name with -d.")
    report = read_json(file)
    if report.get("challenge") != challenge.name:
        raise UserError(f"{folder} was converted from {report.get('challenge')}. Choose another ID or name with -d.")
    known = {file.name for case in cases for file in _targets(folder, case)}
    unknown = [
        file.name
        for part in ("imagesTr", "labelsTr")
        for file in sorted((folder / part).glob("*"))
        if file.is_file() and file.name not in known
    ]
    if unknown:
        raise UserError(
            f"{folder} has files of cases that this source lacks, such as {unknown[0]}. Remove them, or choose "
            f"another ID or name with -d."
        )
    with refuse_damage(file):
        rows = {row["case"]: row for row in report["cases"]}
        return {case.name: rows[case.name] for case in cases if case.name in rows}


def _targets(folder: Path, case: SourceCase) -> tuple[Path, Path]:
    return folder / "imagesTr" / f"{case.name}_0000.nii.gz", folder / "labelsTr" / f"{case.name}.nii.gz"


def _row(case: SourceCase, source: Path, folder: Path, before: Mapping[str, Any]) -> dict[str, Any]:
    """Convert one case unless it was converted before; return its row."""
    targets = _targets(folder, case)
    stamp = case.stamp()
    done = before.get("state") in ("converted", "repaired") and before.get("stamp") == stamp
    if done and all(file.is_file() for file in targets):
        return dict(before)
    state, reason = _convert(case, targets)
    if state in ("skipped", "unlabelled"):
        for file in targets:
            file.unlink(missing_ok=True)  # of an earlier conversion, when the source was another one
    files = {
        role: file.relative_to(source).as_posix() if file else None
        for role, file in (("image", case.image), ("label", case.label))
    }
    return {"case": case.name, "state": state, "reason": reason, **files, "stamp": stamp}


def _convert(case: SourceCase, targets: Sequence[Path]) -> tuple[str, str]:
    """Convert one case; return its state and the reason."""
    if case.label is None:
        return "unlabelled", "no label"
    if case.image is None or case.problem:
        return "skipped", case.problem or "no image"
    try:
        label = to_labels(read_volume(case.label), _LABELS)
        image = read_volume(case.image)
        difference = compare_grids(image, label)
        image = to_int16(image)
    except ValueError as error:
        return "skipped", str(error)
    label.CopyInformation(image)
    for volume, target in zip((image, label), targets, strict=True):
        write_volume(volume, target)
    return ("repaired", difference) if difference else ("converted", "")


def _write_report(folder: Path, challenge: Challenge, rows: Iterable[Mapping[str, Any]]) -> None:
    by_name = sorted(rows, key=lambda row: row["case"])
    content = {"challenge": challenge.name, "counts": Counter(row["state"] for row in by_name), "cases": by_name}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / REPORT_FILE, content)


def _write_dataset_json(folder: Path, challenge: Challenge, num_training: int, regions: bool) -> None:
    """Write nnU-Net's description of the data set; one without cases gets none."""
    if not num_training:
        (folder / "dataset.json").unlink(missing_ok=True)
        return
    organ: int | tuple[int, int] = (1, 2) if regions else 1
    with atomic_path(folder / "dataset.json") as temporary:
        generate_dataset_json(
            str(temporary.parent),
            {0: "CT"},
            {"background": 0, challenge.organ: organ, "tumor": 2},
            num_training,
            ".nii.gz",
            regions_class_order=(1, 2) if regions else None,
            dataset_name=folder.name,
            reference=challenge.reference,
            license="that of the source",
            converted_by="nnUNetv2_hlfd convert",
        )
