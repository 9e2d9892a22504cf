"""Lesions found, matched and missed: connected components of truth and prediction, one case at a time."""

from collections.abc import Sequence
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import linear_sum_assignment

from nnunetv2_hlfd.report.case_files import CaseFiles, Mask, label_mask, list_case_files, map_cases
from nnunetv2_hlfd.report.models import Model

COLUMNS = ["run", "case", "label", "voxels", "detected", "matched", "false_positives", "unmatched"]
LEAST_IOU = 0.1  # of a match

Components = npt.NDArray[np.integer]


def measure_lesions(models: Sequence[Model], folds: Sequence[int]) -> tuple[pd.DataFrame, list[str]]:
    """Find the lesions of every case and label.

    A lesion is a connected component (26 neighbors) of the true label. It is detected where the prediction has any of
    its voxels; a component of the prediction that touches no true voxel is a false positive (as autoPET counts false
    negative and false positive volumes). It is matched where one predicted component is its own: pairs are one to one,
    have an IoU of at least 0.1, and the largest sum of IoU. Voxels with the ignore label count for nothing.

    Args:
        models: whose cases are the same.
        folds: to look at.

    Returns:
        A row for each run, case, label and true lesion (voxels, detected, matched), and one with voxels 0 that holds
        the numbers of false positives and of predicted components without a match; and why cases are missing.
    """
    cases, missing = list_case_files(models, folds)
    return pd.DataFrame(map_cases(_measure_case, cases, "lesions"), columns=COLUMNS), missing


def _measure_case(files: CaseFiles) -> list[dict[str, Any]]:
    reference = files.read(files.reference)
    valid = files.valid(reference)
    lesions = {name: _components(label_mask(reference, value, valid)) for name, value in files.labels.items()}
    rows = []
    for run, file in files.predictions.items():
        segmentation = files.read(file)
        for name, value in files.labels.items():
            key = {"run": run, "case": files.case, "label": name}
            predicted = _components(label_mask(segmentation, value, valid))
            rows += [{**key, **row} for row in _compare(lesions[name], predicted)]
    return rows


def _components(mask: Mask) -> Components:
    """Number of the component of every voxel, 0 outside; 26 neighbors."""
    components: Components = cc3d.connected_components(mask, connectivity=26)
    return components


def _compare(truth: Components, predicted: Components) -> list[dict[str, Any]]:
    """A row for each true lesion, and one for what is predicted beside them."""
    sizes, predicted_sizes = np.bincount(truth.ravel()), np.bincount(predicted.ravel())
    both = (truth > 0) & (predicted > 0)
    number = len(predicted_sizes)
    codes, shared = np.unique(truth[both].astype(np.int64) * number + predicted[both], return_counts=True)
    pairs = np.stack(np.divmod(codes, number))
    detected, touched = set(pairs[0].tolist()), set(pairs[1].tolist())
    matched = _match(pairs, shared / (sizes[pairs[0]] + predicted_sizes[pairs[1]] - shared))
    rows = [
        {
            "voxels": int(size),
            "detected": lesion in detected,
            "matched": lesion in matched,
            "false_positives": 0,
            "unmatched": 0,
        }
        for lesion, size in enumerate(sizes)
        if lesion
    ]
    beside = {"false_positives": number - 1 - len(touched), "unmatched": number - 1 - len(matched)}
    return [*rows, {"voxels": 0, "detected": False, "matched": False, **beside}]


def _match(pairs: Components, ious: npt.NDArray[np.float64]) -> set[int]:
    """The true lesions that have a predicted component of their own.

    Args:
        pairs: (2, number): true and predicted components that overlap.
        ious: (number,) of the pairs.
    """
    pairs, ious = pairs[:, ious >= LEAST_IOU], ious[ious >= LEAST_IOU]
    numbers, places = zip(*(np.unique(side, return_inverse=True) for side in pairs), strict=True)
    table = np.zeros([len(side) for side in numbers])
    table[places] = ious
    rows, columns = linear_sum_assignment(table, maximize=True)
    return set(numbers[0][rows[table[rows, columns] > 0]].tolist())


def lesion_recall(lesions: pd.DataFrame) -> pd.DataFrame:
    """Of all true lesions of a run and label: recall, that of the smaller half, F1; and false positives per case.

    The smaller half: fewer voxels than the median lesion of that label. F1 is 2 m / (lesions + predicted components)
    with m matches. One row for each run and label.
    """
    true = lesions[lesions["voxels"] > 0]
    median = true.groupby("label")["voxels"].transform("median")
    keys = ["run", "label"]
    counts = lesions.assign(lesion=lesions["voxels"] > 0).groupby(keys, sort=False)
    counts = counts[["lesion", "matched", "unmatched"]].sum(min_count=1).astype(float)
    num_components = counts["lesion"] + counts["matched"] + counts["unmatched"]
    return pd.DataFrame(
        {
            "recall": true.groupby(keys, sort=False)["detected"].mean(),
            "small_recall": true[true["voxels"] < median].groupby(keys, sort=False)["detected"].mean(),
            "lesions": true.groupby(keys, sort=False)["detected"].size(),
            "f1": 2 * counts["matched"] / num_components.where(num_components > 0),
            "false_positives": lesions[lesions["voxels"] == 0].groupby(keys, sort=False)["false_positives"].mean(),
        }
    ).reset_index()
