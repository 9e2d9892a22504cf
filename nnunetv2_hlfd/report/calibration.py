"""`--calibration`: whether a probability of 0.8 is right in 8 of 10 voxels (expected calibration error)."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nnunetv2_hlfd.report.arms import Arm, reference_of
from nnunetv2_hlfd.report.bootstrap import Bootstrap
from nnunetv2_hlfd.report.case_files import CaseFiles, Mask, label_mask, list_case_files, map_cases
from nnunetv2_hlfd.report.formatting import format_interval, format_spread
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.report.page import Picture, Section, Table
from nnunetv2_hlfd.report.paired import PairedValues
from nnunetv2_hlfd.report.plots import draw_reliability
from nnunetv2_hlfd.report.probabilities import probabilities_file, read_probabilities
from nnunetv2_hlfd.report.summary import MEAN
from nnunetv2_hlfd.report.target import Target, choose_target
from nnunetv2_hlfd.utilities.errors import UserError

BINS = 10  # of the probability, equally wide
MARGIN = 8  # voxels around the true label
_PANELS = 8  # at most in the figure

Reliability = Mapping[str, Mapping[str, npt.NDArray[np.float64]]]


def measure_calibration(models: Sequence[Model], folds: Sequence[int]) -> pd.DataFrame:
    """Measure every case and label that it truly has, in the box around the label and 8 voxels more.

    Returns:
        A row for each run, case, label and tenth of the probability in which there are voxels: `share` of the box's
        voxels, mean `probability`, and `frequency` of the label among them.

    Raises:
        UserError: for missing or damaged files, and where no case has a label.
    """
    cases, missing = list_case_files(models, folds)
    if missing:
        raise UserError(f"--calibration needs the label maps of every case. {missing[0]}")
    targets = [choose_target(models[0], name) for name in models[0].labels]
    rows = map_cases(functools.partial(_measure_case, targets=targets), cases, "calibration")
    if not rows:
        raise UserError("No validation case has a label, so --calibration has nothing to measure.")
    return pd.DataFrame(rows)


def calibration_error(measured: pd.DataFrame) -> pd.DataFrame:
    """Expected calibration error for each run, case and label, and the mean over the labels that a case has."""
    gap = measured["share"] * (measured["probability"] - measured["frequency"]).abs()
    errors = gap.groupby([measured[key] for key in ("run", "case", "label")], sort=False).sum().rename("ece")
    table = errors.reset_index()
    if table["label"].nunique() == 1:
        return table
    means = errors.groupby(["run", "case"], sort=False).mean().reset_index().assign(label=MEAN)
    return pd.concat([means, table], ignore_index=True)


def calibration_section(measured: pd.DataFrame, arms: Sequence[Arm]) -> Section:
    """Error of each arm and label beside that of its student alone, and the reliability curves."""
    errors = calibration_error(measured)
    rows = []
    for label in errors["label"].unique():
        values = errors[errors["label"] == label]
        measure = PairedValues(values, label, "ece", arms, Bootstrap(values["case"].nunique()), limit=1)
        rows += [_row(measure, arm, reference_of(arm, arms[1:]), values["case"].nunique()) for arm in arms]
    picture = Picture(
        figure=draw_reliability(reliability(measured, arms)),
        name="reliability.png",
        text="How often voxels truly have the label, over the probability that they were given",
    )
    return Section(
        title="Calibration",
        content=[
            Table(head=["Label", "Arm", "Compared with", "Runs", "ECE", "Difference", "Cases"], rows=rows, num_names=3),
            picture,
        ],
        note="ECE: expected calibration error, the mean distance between the probability of the label and how often it "
        f"is right, over {BINS} equally wide bins of the probability; smaller is better. For each case that has the "
        f"label, in the box around it and {MARGIN} voxels more on each side (elsewhere nearly every voxel is rightly "
        "near 0), then the mean over cases and runs. Means and 95 % intervals as those of Dice. Curves: every case "
        "counts alike; below the diagonal the network is too sure that the label is there.",
    )


def reliability(measured: pd.DataFrame, arms: Sequence[Arm]) -> Reliability:
    """Label -> arm -> (2, bins): mean probability, and how often it was right; of more than 8 labels all in one."""
    names = {model.run: arm.name for arm in arms for model in arm.models}
    many = measured["label"].nunique() > _PANELS
    table = measured.assign(
        arm=measured["run"].map(names),
        label="all labels" if many else measured["label"],
        probability=measured["share"] * measured["probability"],
        frequency=measured["share"] * measured["frequency"],
    )
    sums = table.groupby(["label", "arm", "bin"], sort=False)[["share", "probability", "frequency"]].sum().sort_index()
    curves = sums[["probability", "frequency"]].div(sums["share"], axis=0)
    return {
        label: {arm.name: curves.loc[label, arm.name].to_numpy().T for arm in arms} for label in table["label"].unique()
    }


def _row(measure: PairedValues, arm: Arm, alone: Arm | None, num_cases: int) -> list[str]:
    return [
        measure.label,
        arm.name,
        alone.name if alone else "-",
        str(len(arm.models)),
        format_spread(*measure.spread(arm)),
        format_interval(measure.difference(arm, alone)) if alone else "-",
        str(num_cases),
    ]


def _measure_case(files: CaseFiles, targets: Sequence[Target]) -> list[dict[str, Any]]:
    reference = files.read(files.reference)
    valid = files.valid(reference)
    truths = {target: truth for target in targets if (truth := label_mask(reference, target.value, valid)).any()}
    if not truths:
        return []
    boxes = {target: _box(truth) for target, truth in truths.items()}
    rows = []
    for run, file in files.predictions.items():
        channels = read_probabilities(probabilities_file(file), list(truths), reference.shape)
        for (target, truth), probability in zip(truths.items(), channels, strict=True):
            inside = boxes[target]
            counted = valid[inside]
            key = {"run": run, "case": files.case, "label": target.name}
            rows += [{**key, **row} for row in _bins(probability[inside][counted], truth[inside][counted])]
    return rows


def _box(truth: Mask) -> tuple[slice, ...]:
    return tuple(
        slice(max(int(places.min()) - MARGIN, 0), int(places.max()) + 1 + MARGIN) for places in np.nonzero(truth)
    )


def _bins(probability: npt.NDArray[Any], truth: Mask) -> list[dict[str, Any]]:
    """Of (voxels,) each; a probability of 1 is in the last bin."""
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    counts, sums, hits = (np.bincount(place, weights, minlength=BINS) for weights in (None, probability, truth))
    return [
        {
            "bin": number,
            "share": counts[number] / len(place),
            "probability": sums[number] / counts[number],
            "frequency": hits[number] / counts[number],
        }
        for number in np.flatnonzero(counts)
    ]
