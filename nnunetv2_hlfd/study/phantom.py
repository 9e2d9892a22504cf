"""A study on the built-in phantom makes its own data set: simulated, planned and preprocessed."""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.datasets.locations import preprocessed_folder, raw_folder
from nnunetv2_hlfd.datasets.phantom import write_phantom_dataset
from nnunetv2_hlfd.study.entries import check_keys, read_mapping
from nnunetv2_hlfd.utilities.atomic import partial_folder, publish, write_json
from nnunetv2_hlfd.utilities.child_process import executable, last_lines
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json
from nnunetv2_hlfd.utilities.lock import LOCK_FILE, locked
from nnunetv2_hlfd.utilities.process_groups import run_in_group

_KEY = "hlfd_phantom"  # of dataset.json: what the cases were made with
_MOST_CASES, _MOST_VOXELS, _LARGEST_SEED = 1000, 256**3, 2**32 - 1
_PROCESSES = "2"  # each imports torch; the cases are few and small


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """What decides the cases: their number, voxels and mm along (z, y, x), and a seed."""

    cases: int = 15
    size: tuple[int, ...] = (20, 80, 80)
    spacing: tuple[float, ...] = (7.0, 4.3, 4.3)
    seed: int = 1


def read_phantom(value: Any, dataset: str) -> Phantom:
    """Read the entry of a study file.

    Raises:
        UserError: for unknown keys, a data set without a full name, or cases that would fill the memory or the disk.
    """
    entry = read_mapping(value or {}, "phantom")
    check_keys(entry, [field.name for field in fields(Phantom)], "phantom")
    if not re.fullmatch(r"Dataset\d{3}_\w[\w.-]*", dataset):
        raise UserError(
            f"phantom: expected the full name of the data set, such as Dataset900_Phantom, got '{dataset:.80}'."
        )
    tuples = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
    phantom = Phantom(**{**entry, **tuples})
    for key, number, most, words in (
        ("cases", phantom.cases, _MOST_CASES, f"cases of at most {_MOST_CASES}"),
        ("size", _voxels(phantom.size), _MOST_VOXELS, f"a size of at most {_MOST_VOXELS} voxels"),
        ("seed", phantom.seed, _LARGEST_SEED, f"a seed of at most {_LARGEST_SEED}"),
    ):
        if not isinstance(number, int) or number > most:
            raise UserError(f"phantom: expected {words}, got {getattr(phantom, key)!r:.80}.")
    return phantom


def _voxels(size: Any) -> int | None:
    """The number of voxels of a size, None where it is none."""
    return prod(size) if isinstance(size, tuple) and all(isinstance(extent, int) for extent in size) else None


def make_phantom(phantom: Phantom, dataset: str, configuration: str) -> None:
    """Simulate, plan and preprocess the data set, as far as it is not there.

    Raises:
        UserError: for a data set of that name or ID which is another one, numbers that make no phantom, or where
            nnU-Net fails.
    """
    preprocessed, number = preprocessed_folder(), dataset[7:10]
    for folder in (raw_folder(), preprocessed):
        if others := [path.name for path in folder.glob(f"Dataset{number}_*") if path.name != dataset]:
            raise UserError(
                f"{folder / others[0]} has the ID {number} of the phantom {dataset}. Choose another 'dataset'."
            )
    raw = raw_folder() / dataset
    with locked(raw.parent, f"nnUNetv2_hlfd study, which makes {dataset}", name=f".{dataset}{LOCK_FILE}"):
        if raw.is_dir():
            _check_same(phantom, raw)
        else:
            _simulate(phantom, raw)
        if not _is_preprocessed(raw, preprocessed / dataset / f"nnUNetPlans_{configuration}"):
            _plan_and_preprocess(dataset, configuration, preprocessed)


def _is_preprocessed(raw: Path, folder: Path) -> bool:
    """Whether every case is there: a start that was killed leaves some. nnU-Net writes the pkl file of a case last."""
    return len([*folder.glob("*.pkl")]) >= len([*(raw / "labelsTr").iterdir()])


def _check_same(phantom: Phantom, raw: Path) -> None:
    there = read_json(raw / "dataset.json").get(_KEY)
    if there != _described(phantom):
        raise UserError(
            f"{raw} was made with other numbers than this study's phantom ({there} there, {_described(phantom)} here). "
            f"Choose another 'dataset', or remove that folder and its namesakes in nnUNet_preprocessed and "
            f"nnUNet_results."
        )


def _described(phantom: Phantom) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(phantom).items()}


def _simulate(phantom: Phantom, raw: Path) -> None:
    """Make all cases beside the folder, then rename: a stop in between leaves no data set."""
    with partial_folder(raw) as scratch:
        made = scratch / raw.name
        try:
            write_phantom_dataset(
                made, num_training=phantom.cases, size=phantom.size, spacing=phantom.spacing, seed=phantom.seed
            )
        except (TypeError, ValueError) as error:
            raise UserError(f"phantom: {error}") from error
        description = read_json(made / "dataset.json")
        write_json(made / "dataset.json", {**description, _KEY: _described(phantom)})
        publish(made, raw)


def _plan_and_preprocess(dataset: str, configuration: str, preprocessed: Path) -> None:
    log = preprocessed / f"{dataset}_planning.log"
    print(f"Planning and preprocessing {dataset}, log {log}", flush=True)
    environment: Mapping[str, str] = {**os.environ, "nnUNet_n_proc_DA": _PROCESSES}  # planning divides by it
    with log.open("w", encoding="utf-8") as output:
        words = [executable("nnUNetv2_plan_and_preprocess"), "-d", dataset[7:10], "-c", configuration]
        code = run_in_group([*words, "-npfp", _PROCESSES, "-np", _PROCESSES], output, environment)
    if code:
        raise UserError(f"nnUNetv2_plan_and_preprocess failed with exit code {code}:\n{last_lines(log)}")
    log.unlink()
