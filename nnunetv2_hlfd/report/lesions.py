"""Lesions found and missed: connected components of truth and prediction, one case at a time."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
import pandas as pd
from nnunetv2.evaluation.evaluate_predictions import region_or_label_to_mask
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from nnunetv2_hlfd.report.models import LabelValue, Model

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One case: its true label map, and every model's prediction of it."""

    case: str
    reader: Any
    reference: Path
    predictions: Mapping[str, str]
    labels: Mapping[str, LabelValue]
    ignore: int | None


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
    jobs, missing = [], []
    for job in _jobs(models, folds):
        absent = [each for each in (job.reference, *map(Path, job.predictions.values())) if not each.is_file()]
        if absent:
            missing.append(f"{job.case}: no {absent[0]}")
        else:
            jobs.append(job)
    if not jobs:
        return pd.DataFrame(columns=["run", "case", "label", "voxels", "detected", "false_positives"]), missing
    workers = min(len(jobs), cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        rows = [row for each in tqdm(pool.map(_measure_case, jobs, chunksize=4), total=len(jobs), desc="lesions")
                for row in each]  # fmt: skip
    return pd.DataFrame(rows), missing


def _jobs(models: Sequence[Model], folds: Sequence[int]) -> Iterator[_Job]:
    first = models[0]
    reader = PlansManager(dict(first.plans)).image_reader_writer_class()
    predictions: dict[str, dict[str, str]] = {}
    for model in models:
        rows = model.cases[model.cases["fold"].isin(folds)].drop_duplicates("case")
        for case, prediction in zip(rows["case"], rows["prediction"], strict=True):
            predictions.setdefault(case, {})[model.run] = prediction
    rows = first.cases[first.cases["fold"].isin(folds)].drop_duplicates("case")
    for case, reference in zip(rows["case"], rows["reference"], strict=True):
        yield _Job(
            case=case, reader=reader, reference=find_reference(Path(reference), first), predictions=predictions[case],
            labels=first.labels, ignore=first.dataset_json["labels"].get("ignore"),
        )  # fmt: skip


def find_reference(recorded: Path, model: Model) -> Path:
    """The true label map: where the evaluation found it, else among nnU-Net's preprocessed data of this machine."""
    if recorded.is_file():
        return recorded
    from nnunetv2.paths import nnUNet_preprocessed

    try:
        return Path(str(nnUNet_preprocessed)) / model.plans["dataset_name"] / "gt_segmentations" / recorded.name
    except (KeyError, RuntimeError):  # no such variable
        return recorded


def _measure_case(job: _Job) -> list[dict[str, Any]]:
    reference = job.reader.read_seg(str(job.reference))[0][0]
    valid = np.ones(reference.shape, dtype=bool) if job.ignore is None else reference != job.ignore
    truths = {name: region_or_label_to_mask(reference, value) & valid for name, value in job.labels.items()}
    components = {name: cc3d.connected_components(truth, connectivity=26) for name, truth in truths.items()}
    rows = []
    for run, file in job.predictions.items():
        segmentation = job.reader.read_seg(file)[0][0]
        for name, value in job.labels.items():
            predicted = region_or_label_to_mask(segmentation, value) & valid
            found = set(np.unique(components[name][predicted]).tolist())
            sizes = np.bincount(components[name].ravel())
            key = {"run": run, "case": job.case, "label": name}
            rows += [{**key, "voxels": int(size), "detected": number in found, "false_positives": 0}
                     for number, size in enumerate(sizes) if number]  # fmt: skip
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
    return pd.DataFrame({
        "recall": true.groupby(keys, sort=False)["detected"].mean(),
        "small_recall": true[true["voxels"] < median].groupby(keys, sort=False)["detected"].mean(),
        "lesions": true.groupby(keys, sort=False)["detected"].size(),
        "false_positives": lesions[lesions["voxels"] == 0].groupby(keys, sort=False)["false_positives"].mean(),
    }).reset_index()  # fmt: skip
