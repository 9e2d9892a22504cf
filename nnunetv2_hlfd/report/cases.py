"""The validation results of a model as a table, and the labels that they are about."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nnunetv2_hlfd.models.fold import SUMMARY
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_shape import check_shape

LabelValue = int | tuple[int, ...]
_CASE = {"reference_file": str, "metrics": {str: {"Dice": float, "n_pred": float, "n_ref": float}}}
_MOST_VOXELS = 2**53


def read_labels(folder: ModelFolder) -> dict[str, LabelValue]:
    """Name -> value of every label or region but background and ignore, as summary.json keys them."""
    return {
        name: tuple(map(int, value)) if isinstance(value, list) else int(value)
        for name, value in folder.dataset_json["labels"].items()
        if name not in ("background", "ignore")
    }


def read_cases(folder: ModelFolder, folds: Sequence[int], labels: Mapping[str, LabelValue]) -> pd.DataFrame:
    """One row for each validation case and label; the columns are those of `Model.cases`.

    Raises:
        UserError: for damaged results, those of another data set, or a case in two folds.
    """
    names = {str(value): name for name, value in labels.items()}  # nnU-Net's keys
    table = pd.DataFrame([row for fold in folds for row in _read_fold(folder, fold, names)])
    twice = table[table.duplicated(["case", "label"])]
    if len(twice):
        raise UserError(f"{folder.path} was validated on {twice['case'].iloc[0]} in more than one fold.")
    return table


def _read_fold(folder: ModelFolder, fold: int, names: Mapping[str, str]) -> list[dict[str, Any]]:
    summary = folder.fold(fold).file(SUMMARY)
    rows = []
    for prediction, case in folder.fold(fold).results().items():
        try:
            check_shape(case, _CASE)
        except UserError as error:
            raise UserError(f"{summary} is damaged: {error}") from error
        if case["metrics"].keys() != names.keys():
            raise UserError(
                f"{summary} is damaged or of another data set: expected the labels {', '.join(names)}, got "
                f"{', '.join(case['metrics'])[:200] or 'none'}."
            )
        for key, metrics in case["metrics"].items():
            row = {
                "fold": fold,
                "case": prediction.removesuffix(folder.file_ending),
                "label": names[key],
                "dice": float(metrics["Dice"]),
                "n_pred": _count(metrics["n_pred"], summary),
                "n_ref": _count(metrics["n_ref"], summary),
                "reference": case["reference_file"],
                "prediction": str(summary.parent / prediction),
            }
            if math.isinf(row["dice"]):
                raise UserError(f"{summary} is damaged: expected a Dice, got {row['dice']}.")
            rows.append(row)
    if not rows:
        raise UserError(f"{summary} is damaged: it has no cases.")
    return rows


def _count(value: float, summary: Path) -> int:
    """A number of voxels, which nnU-Net may write with a point."""
    if not 0 <= value < _MOST_VOXELS:
        raise UserError(f"{summary} is damaged: expected a number of voxels, got {value!r:.40}.")
    return int(value)
