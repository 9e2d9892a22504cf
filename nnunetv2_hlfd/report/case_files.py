"""The label maps of a report: the truth of each case, and what every model predicted for it, one case at a time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nnunetv2.evaluation.evaluate_predictions import region_or_label_to_mask
from tqdm import tqdm

from nnunetv2_hlfd.report.cases import LabelValue
from nnunetv2_hlfd.report.models import Model

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """One case.

    Attributes:
        reader: nnU-Net's reader of its label maps.
        reference: its true label map.
        predictions: run -> label map.
        slice_axis: of the file, across which nnU-Net's slices lie: that of the largest spacing.
    """

    case: str
    reader: Any
    reference: Path
    predictions: Mapping[str, Path]
    labels: Mapping[str, LabelValue]
    ignore: int | None
    slice_axis: int

    def read(self, file: Path) -> npt.NDArray[Any]:
        """A label map, axes as in the file."""
        labels: npt.NDArray[Any] = self.reader.read_seg(str(file))[0][0]
        return labels

    def valid(self, reference: npt.NDArray[Any]) -> Mask:
        """Voxels that count: those without the ignore label."""
        return np.ones(reference.shape, dtype=bool) if self.ignore is None else reference != self.ignore


def list_case_files(models: Sequence[Model], folds: Sequence[int]) -> tuple[list[CaseFiles], list[str]]:
    """The cases whose label maps are all there; and why the others are missing.

    Args:
        models: whose cases are the same.
        folds: to look at.
    """
    first = models[0]
    plans, dataset_json = first.folder.plans, first.folder.dataset_json
    predictions: dict[str, dict[str, Path]] = {}
    for model in models:
        rows = model.cases[model.cases["fold"].isin(folds)].drop_duplicates("case")
        for case, prediction in zip(rows["case"], rows["prediction"], strict=True):
            predictions.setdefault(case, {})[model.run] = Path(prediction)
    found, missing = [], []
    rows = first.cases[first.cases["fold"].isin(folds)].drop_duplicates("case")
    for case, recorded in zip(rows["case"], rows["reference"], strict=True):
        reference = find_reference(Path(recorded), first)
        absent = [file for file in (reference, *predictions[case].values()) if not file.is_file()]
        if absent:
            missing.append(f"{case}: no {absent[0]}")
            continue
        found.append(
            CaseFiles(
                case=case,
                reader=plans.image_reader_writer_class(),
                reference=reference,
                predictions=predictions[case],
                labels=first.labels,
                ignore=dataset_json["labels"].get("ignore"),
                slice_axis=plans.plans.get("transpose_forward", (0,))[0],
            )
        )
    return found, missing


def find_reference(recorded: Path, model: Model) -> Path:
    """The true label map: where the evaluation found it, else among nnU-Net's preprocessed data of this machine."""
    if recorded.is_file():
        return recorded
    from nnunetv2.paths import nnUNet_preprocessed

    try:
        return Path(str(nnUNet_preprocessed)) / model.folder.plans.dataset_name / "gt_segmentations" / recorded.name
    except RuntimeError:  # no such variable
        return recorded


def label_mask(labels: npt.NDArray[Any], value: LabelValue, valid: Mask) -> Mask:
    """Voxels of a label or region, without those that do not count."""
    mask: Mask = region_or_label_to_mask(labels, value) & valid
    return mask


def map_cases(
    measure: Callable[[CaseFiles], Iterable[dict[str, Any]]], cases: Sequence[CaseFiles], title: str
) -> list[dict[str, Any]]:
    """Rows of a table, measured case by case, in several processes where there are several cores."""
    workers = min(len(cases), cpu_count() or 1)
    if workers <= 1:
        return [row for case in cases for row in measure(case)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        done = tqdm(pool.map(measure, cases, chunksize=4), total=len(cases), desc=title)
        return [row for rows in done for row in rows]
