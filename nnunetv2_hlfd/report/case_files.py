"""The label maps of a report: the truth of each case, and what every model predicted for it, one case at a time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nnunetv2.evaluation.evaluate_predictions import region_or_label_to_mask
from tqdm import tqdm

from nnunetv2_hlfd.datasets.locations import preprocessed_folder
from nnunetv2_hlfd.report.cases import LabelValue
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.orphans import process_pool
from nnunetv2_hlfd.utilities.text import file_name

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """One case.

    Attributes:
        readers: label map -> nnU-Net's reader of it.
        reference: its true label map.
        predictions: run -> label map.
        slice_axis: of the file, across which nnU-Net's slices lie: that of the largest spacing.
    """

    case: str
    readers: Mapping[Path, Any]
    reference: Path
    predictions: Mapping[str, Path]
    labels: Mapping[str, LabelValue]
    ignore: int | None
    slice_axis: int

    def read(self, file: Path) -> npt.NDArray[Any]:
        """A label map, axes as in the file."""
        return self.read_with_spacing(file)[0]

    def read_with_spacing(self, file: Path) -> tuple[npt.NDArray[Any], list[float]]:
        """A label map, and the size of a voxel along its axes in mm."""
        labels, properties = self.readers[file].read_seg(str(file))
        return labels[0], list(properties["spacing"])

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
    files = {model.run: _recorded_files(model, folds) for model in models}
    found, missing = [], []
    for case in files[first.run]:
        predictions = {model.run: files[model.run][case][1] for model in models}
        reference, source = find_reference([(files[model.run][case][0], model) for model in models])
        if absent := [file for file in (reference, *predictions.values()) if not is_there(file)]:
            missing.append(f"{case}: no {absent[0]}")
            continue
        readers = {predictions[model.run]: label_map_reader(model, first) for model in models}
        found.append(
            CaseFiles(
                case=case,
                readers={**readers, reference: label_map_reader(source, first)},
                reference=reference,
                predictions=predictions,
                labels=first.labels,
                ignore=first.folder.dataset_json["labels"].get("ignore"),
                slice_axis=first.folder.plans.plans.get("transpose_forward", (0,))[0],
            )
        )
    return found, missing


def label_map_reader(model: Model, first: Model) -> Any:
    """nnU-Net's reader of a model's label maps: the first model's, where their files are of one kind.

    Readers may differ in the order of axes, so what is compared is read by one of them wherever it can be.
    """
    same = model.folder.file_ending == first.folder.file_ending
    return (first if same else model).folder.plans.image_reader_writer_class()


def find_reference(recorded: Sequence[tuple[str, Model]]) -> tuple[Path, Model]:
    """The first true label map of a case that is there, and the model whose it is; else the first that is not.

    Args:
        recorded: where the evaluation of each model has found it, on whatever machine.
    """
    places = [(_reference(path, model), model) for path, model in recorded]
    return next((place for place in places if is_there(place[0])), places[0])


def _reference(recorded: str, model: Model) -> Path:
    """Where the evaluation found it, else among nnU-Net's preprocessed data of this machine."""
    if is_there(Path(recorded)):
        return Path(recorded)
    try:
        folder = preprocessed_folder() / model.folder.plans.dataset_name / "gt_segmentations"
    except UserError:  # no such variable
        return Path(recorded)
    return folder / file_name(recorded)


def is_there(recorded: Path) -> bool:
    """Return whether a recorded path is a file of this machine; what it cannot even have or look at is none."""
    try:
        return recorded.is_file()
    except OSError:
        return False


def _recorded_files(model: Model, folds: Sequence[int]) -> dict[str, tuple[str, Path]]:
    """Case -> its true label map as recorded, and the predicted one."""
    rows = model.cases[model.cases["fold"].isin(folds)].drop_duplicates("case")
    return {row.case: (row.reference, Path(row.prediction)) for row in rows.itertuples()}


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
    with process_pool(workers) as pool:
        done = tqdm(pool.map(measure, cases, chunksize=4), total=len(cases), desc=title)
        return [row for rows in done for row in rows]
