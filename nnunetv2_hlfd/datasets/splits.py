"""The folds of a converted data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunetv2_hlfd.datasets.locations import preprocessed_folder
from nnunetv2_hlfd.utilities.atomic import write_json
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json

NNUNET_SEED = 12345  # of the split that nnU-Net makes where there is none
_SPLITS = [{"train": [str], "val": [str]}]
_NUM_FOLDS = 5  # so that a fold of KiTS19's 210 cases has the paper's 168 and 42


class Split(TypedDict):
    """Names of a fold's cases."""

    train: list[str]
    val: list[str]


def read_splits(file: Path) -> list[Split]:
    """Read a splits_final.json.

    Raises:
        UserError: for a damaged file.
        FileNotFoundError: where there is none.
    """
    splits: list[Split] = read_json(file, _SPLITS)
    return splits


def write_splits(dataset: str, cases: Sequence[str], seed: int = NNUNET_SEED) -> str:
    """Write five seeded folds to nnUNet_preprocessed/DATASET/splits_final.json, which planning leaves alone.

    Args:
        dataset: name.
        cases: all of its training cases.
        seed: with nnU-Net's own the folds are those that nnU-Net would make.

    Returns:
        A line for the user.

    Raises:
        UserError: for too few cases, or where other folds are there already.
    """
    if len(cases) < _NUM_FOLDS:
        raise UserError(f"Expected at least {_NUM_FOLDS} cases for {_NUM_FOLDS} folds, got {len(cases)}.")
    file = preprocessed_folder() / dataset / "splits_final.json"
    folds = generate_crossval_split(sorted(cases), seed=seed, n_splits=_NUM_FOLDS)
    if file.is_file() and read_splits(file) != folds:
        raise UserError(f"{file} has other folds, which trainings may have used. Remove it first to replace them.")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, folds)
    train, val = (len(folds[0][part]) for part in ("train", "val"))
    return f"Wrote {file}: {len(folds)} folds; fold 0 trains on {train} cases and validates on {val}."
