"""Lesions found and missed: connected components of truth and prediction, one case at a time."""

from collections.abc import Sequence
from typing import Any

import cc3d
import numpy as np
import pandas as pd

from nnunetv2_hlfd.report.case_files import CaseFiles, Mask, label_mask, list_case_files, map_cases
from nnunetv2_hlfd.report.models import Model


def measure_lesions(models: Sequence[Model], folds: Sequence[int]) -> tuple[pd.DataFrame, list[str]]:
    """Find the lesions of every case and label.

    A lesion is a connected component (26 neighbors) of the true label. It is detected where the prediction has any of
    its voxels; a component of the prediction that touches no true voxel is a false positive (as autoPET counts false
    negative and false positive volumes). Voxels with the ignore label count for nothing.

    Args:
        models: whose cases are the same.
        folds: to look at.

    Returns:
        A row for each run, case, label and true lesion (voxels, detected), and one with voxels 0 that holds the number
        of false positives; and why cases are missing.
    """
    cases, missing = list_case_files(models, folds)
    columns = ["run", "case", "label", "voxels", "detected", "false_positives"]
    return pd.DataFrame(map_cases(_measure_case, cases, "lesions"), columns=columns), missing


def _measure_case(files: CaseFiles) -> list[dict[str, Any]]:
    reference = files.read(files.reference)
    valid = files.valid(reference)
    truths = {name: label_mask(reference, value, valid) for name, value in files.labels.items()}
    components = {name: cc3d.connected_components(truth, connectivity=26) for name, truth in truths.items()}
    rows = []
    for run, file in files.predictions.items():
        segmentation = files.read(file)
        for name, value in files.labels.items():
            predicted = label_mask(segmentation, value, valid)
            found = set(np.unique(components[name][predicted]).tolist())
            sizes = np.bincount(components[name].ravel())
            key = {"run": run, "case": files.case, "label": name}
            rows += [
                {**key, "voxels": int(size), "detected": number in found, "false_positives": 0}
                for number, size in enumerate(sizes)
                if number
            ]
            rows.append(
                {**key, "voxels": 0, "detected": False, "false_positives": _false_positives(predicted, truths[name])}
            )
    return rows


def _false_positives(predicted: Mask, truth: Mask) -> int:
    components = cc3d.connected_components(predicted, connectivity=26)
    touched = np.unique(components[truth])
    return int(components.max()) - int(np.count_nonzero(touched))


def lesion_recall(lesions: pd.DataFrame) -> pd.DataFrame:
    """Recall over all true lesions of a run and label, over the smaller half of them, and false positives per case.

    The smaller half: fewer voxels than the median lesion of that label. One row for each run and label.
    """
    true = lesions[lesions["voxels"] > 0]
    median = true.groupby("label")["voxels"].transform("median")
    keys = ["run", "label"]
    return pd.DataFrame(
        {
            "recall": true.groupby(keys, sort=False)["detected"].mean(),
            "small_recall": true[true["voxels"] < median].groupby(keys, sort=False)["detected"].mean(),
            "lesions": true.groupby(keys, sort=False)["detected"].size(),
            "false_positives": lesions[lesions["voxels"] == 0].groupby(keys, sort=False)["false_positives"].mean(),
        }
    ).reset_index()
