"""The validation results of a model as a table, and the labels that they are about."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from nnunetv2.evaluation.evaluate_predictions import key_to_label_or_region

from nnunetv2_hlfd.models.fold import SUMMARY
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.utilities.errors import UserError

LabelValue = int | tuple[int, ...]


def read_labels(folder: ModelFolder) -> dict[str, LabelValue]:
    """Name -> value of every label or region but background and ignore, as summary.json keys them.

    Raises:
        UserError: for a damaged dataset.json.
    """
    try:
        return {
            name: tuple(value) if isinstance(value, list | tuple) else int(value)
            for name, value in folder.dataset_json["labels"].items()
            if name not in ("background", "ignore")
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder.path / 'dataset.json'} is damaged: {error!r}") from error


def read_cases(folder: ModelFolder, folds: Sequence[int], labels: Mapping[str, LabelValue]) -> pd.DataFrame:
    """One row for each validation case and label; the columns are those of `Model.cases`.

    Raises:
        UserError: for damaged results, those of another data set, or a case in two folds.
    """
    names = {value: name for name, value in labels.items()}
    table = pd.DataFrame([row for fold in folds for row in _read_fold(folder, fold, names)])
    twice = table[table.duplicated(["case", "label"])]
    if len(twice):
        raise UserError(f"{folder.path} was validated on {twice['case'].iloc[0]} in more than one fold.")
    return table


def _read_fold(folder: ModelFolder, fold: int, names: Mapping[LabelValue, str]) -> list[dict[str, Any]]:
    summary = folder.fold(fold).file(SUMMARY)
    results = folder.fold(fold).results()
    try:
        return [
            {
                "fold": fold,
                "case": prediction.removesuffix(folder.file_ending),
                "label": names[_value(key)],
                "dice": float(metrics["Dice"]),
                "n_pred": int(metrics["n_pred"]),
                "n_ref": int(metrics["n_ref"]),
                "reference": case["reference_file"],
                "prediction": str(summary.parent / prediction),
            }
            for prediction, case in results.items()
            for key, metrics in case["metrics"].items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{summary} is damaged or of another data set: {error!r}") from error


def _value(key: str) -> LabelValue:
    value = key_to_label_or_region(key)
    return value if isinstance(value, tuple) else int(value)
