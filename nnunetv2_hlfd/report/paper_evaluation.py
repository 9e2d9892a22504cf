"""`--paper_evaluation`: Dice and RVD as the paper's published code has them, beside nnU-Net's, for comparison only.

That code keeps the slices that truly contain tumor, and calls tumor what has a softmax above 0.4
(docs/explanation/evaluation.md).
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from nnunetv2_hlfd.report.arms import Arm
from nnunetv2_hlfd.report.case_files import CaseFiles, Mask, label_mask, list_case_files, map_cases
from nnunetv2_hlfd.report.formatting import format_spread
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.report.page import Section, Table
from nnunetv2_hlfd.report.probabilities import probabilities_file, read_probabilities
from nnunetv2_hlfd.report.target import Target
from nnunetv2_hlfd.utilities.dice import dice
from nnunetv2_hlfd.utilities.errors import UserError

THRESHOLD = 0.4
_METRICS = {
    "dice": "Dice, whole cases",
    "slices_dice": "Dice, slices",
    "threshold_dice": f"Dice, slices, {THRESHOLD}",
    "rvd": "RVD, whole cases",
    "threshold_rvd": f"RVD, slices, {THRESHOLD}",
}


def measure_paper_evaluation(models: Sequence[Model], folds: Sequence[int], target: Target) -> pd.DataFrame:
    """Measure every case that truly has the label.

    Returns:
        A row for each run and case: number of its slices with the label, Dice and RVD = |P| / |G| - 1 of the whole case
        (nnU-Net's segmentation), of those slices (slices_*), and of them with the label where its probability is above
        0.4 (threshold_*).

    Raises:
        UserError: for missing or damaged files, and where no case has the label.
    """
    cases, missing = list_case_files(models, folds)
    if missing:
        raise UserError(f"--paper_evaluation needs the label maps of every case. {missing[0]}")
    rows = map_cases(functools.partial(_measure_case, target=target), cases, "paper's evaluation")
    if not rows:
        raise UserError(f"No validation case has the label '{target.name}', which --paper_evaluation is to measure.")
    return pd.DataFrame(rows)


def paper_section(measured: pd.DataFrame, arms: Sequence[Arm], target: Target) -> Section:
    """Means over the cases of each run, then mean and standard deviation over the runs of each arm."""
    runs = measured.groupby("run")[list(_METRICS)].mean()
    rows = []
    for arm in arms:
        own = runs.loc[[model.run for model in arm.models]]
        cells = [
            format_spread(own[metric].mean(), own[metric].std() if len(own) > 1 else math.nan) for metric in _METRICS
        ]
        rows.append([arm.name, str(len(own)), *cells])
    return Section(
        title=f"As the paper evaluates: {target.name}",
        content=[Table(head=["Arm", "Runs", *_METRICS.values()], rows=rows)],
        note=f"For comparison with the paper only: whoever keeps the slices that truly contain {target.name} has used "
        f"the truth, and sees no false positive elsewhere. Slices: those only, {measured['case'].nunique()} cases that "
        f"have {target.name}. {THRESHOLD}: {target.name} where its probability is above {THRESHOLD}; else nnU-Net's "
        f"segmentation. RVD with its sign. Mean over cases, then mean ± standard deviation over runs.",
    )


def _measure_case(files: CaseFiles, target: Target) -> list[dict[str, Any]]:
    reference = files.read(files.reference)
    valid = files.valid(reference)
    truth = label_mask(reference, target.value, valid)
    slices = np.moveaxis(truth, files.slice_axis, 0).any(axis=(1, 2))
    if not slices.any():
        return []

    def with_label(mask: Mask) -> Mask:
        return np.moveaxis(mask, files.slice_axis, 0)[slices]

    rows = []
    for run, file in files.predictions.items():
        predicted = label_mask(files.read(file), target.value, valid)
        likely = (read_probabilities(probabilities_file(file), [target], truth.shape)[0] > THRESHOLD) & valid
        pairs = {
            "": (predicted, truth),
            "slices_": (with_label(predicted), with_label(truth)),
            "threshold_": (with_label(likely), with_label(truth)),
        }
        rows.append(
            {
                "run": run,
                "case": files.case,
                "slices": int(slices.sum()),
                **{f"{name}dice": dice(*pair) for name, pair in pairs.items()},
                **{f"{name}rvd": _rvd(*pair) for name, pair in pairs.items()},
            }
        )
    return rows


def _rvd(predicted: Mask, truth: Mask) -> float:
    return int(predicted.sum()) / int(truth.sum()) - 1
