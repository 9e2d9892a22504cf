"""Dice on the held-out images: of the students against the teacher, and of all against the truth where it is known."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from nnunetv2_hlfd.compress.teacher import foreground
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.report.bootstrap import Bootstrap, Interval
from nnunetv2_hlfd.utilities.dice import dice, dice_or_agreement

TEACHER, TRUTH = "teacher", "truth"


def score(
    model: ModelFolder,
    cases: Sequence[str],
    predictions: Mapping[str, Path],
    truth: Mapping[str, Path],
) -> pd.DataFrame:
    """Score label maps.

    Args:
        model: Tells labels, file ending and reader.
        cases: Names of the held-out images.
        predictions: Name of a model, `TEACHER` among them -> folder of its label maps.
        truth: Case -> true label map, where there is one.

    Returns:
        One row for each model, reference (`TEACHER` or `TRUTH`), case and label: model, against, case, label, dice (1
        where the label is in neither map, 0 where it is in one alone), nnunet_dice (NaN where it is in neither),
        voxels, reference_voxels.
    """
    reader = model.plans.image_reader_writer_class()
    ignore = model.dataset_json["labels"].get("ignore")
    rows: list[dict[str, Any]] = []
    for case in tqdm(cases, desc="Comparing", disable=None):
        maps = {name: _read(reader, folder / f"{case}{model.file_ending}") for name, folder in predictions.items()}
        references = {TEACHER: maps[TEACHER]}
        if case in truth:
            references[TRUTH] = _read(reader, truth[case])
        for against, reference in references.items():
            valid = np.ones(reference.shape, bool) if ignore is None else reference != ignore
            for name, predicted in maps.items():
                if name != against:
                    for row in _compare(predicted, reference, valid, foreground(model)):
                        rows.append({"model": name, "against": against, "case": case, **row})
    return pd.DataFrame(rows)


def _read(reader: Any, file: Path) -> NDArray[Any]:
    labels: NDArray[Any] = reader.read_seg(str(file))[0][0]
    return labels


def _compare(
    predicted: NDArray[Any], reference: NDArray[Any], valid: NDArray[np.bool_], labels: Mapping[str, Sequence[int]]
) -> Iterator[dict[str, Any]]:
    for label, values in labels.items():
        found, expected = (valid & np.isin(segmentation, values) for segmentation in (predicted, reference))
        yield {
            "label": label,
            "dice": dice_or_agreement(found, expected),
            "nnunet_dice": dice(found, expected),
            "voxels": int(found.sum()),
            "reference_voxels": int(expected.sum()),
        }


def of_cases(
    scores: pd.DataFrame, model: str, against: str, label: str | None = None, measure: str = "dice"
) -> "pd.Series[float]":
    """A measure of each case: of one label, or the mean over the labels that have it."""
    rows = scores[(scores["model"] == model) & (scores["against"] == against)]
    if label is not None:
        rows = rows[rows["label"] == label]
    return rows.groupby("case")[measure].mean()


def mean_of(values: "pd.Series[float]", lowest: float = 0.0) -> Interval | None:
    """Mean over the cases with its interval; None without a case.

    Args:
        values: Of each case.
        lowest: What no mean is below; none is above 1.
    """
    if not len(values):
        return None
    interval = Bootstrap(len(values)).mean(values.to_numpy(float))
    return replace(interval, low=max(interval.low, lowest), high=min(interval.high, 1.0))


def behind_teacher(scores: pd.DataFrame, model: str, label: str | None = None) -> Interval | None:
    """A student's Dice against the truth less the teacher's, over the cases with a truth; None where there are none."""
    return mean_of(of_cases(scores, model, TRUTH, label) - of_cases(scores, TEACHER, TRUTH, label), lowest=-1.0)
