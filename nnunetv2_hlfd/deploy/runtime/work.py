"""Predicting all cases of a folder: one after the other, whatever one of them is like, and all that is odd is said."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .cases import Case
from .dicom_seg import write_dicom_seg
from .errors import last_line
from .images import is_finished, read_image, write_segmentation
from .network import Network
from .predict import predict_labels
from .unlike_training import compare_found, compare_image


@dataclass(frozen=True, kw_only=True)
class How:
    """How to predict.

    Attributes:
        step_size: of the sliding window, in patches.
        mirroring: whether to mirror, where the model allows it.
        dicom_seg: whether to write DICOM-SEG files as well.
    """

    step_size: float
    mirroring: bool
    dicom_seg: bool


@dataclass
class Outcome:
    """Names of the cases that failed, and of those that were predicted with warnings."""

    failed: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    def summary(self, cases: int, left_over: int) -> list[str]:
        """Count what a person has to look at."""
        lines = []
        if self.failed:
            lines.append(f"{len(self.failed)} of {cases} cases failed: {', '.join(self.failed)}")
        if self.warned:
            lines.append(f"{len(self.warned)} of {cases} cases have warnings: {', '.join(self.warned)}")
        if left_over:
            lines.append(f"{left_over} images match no case and were not predicted")
        return lines

    def exit_code(self, left_over: int) -> int:
        """1 where something was not predicted, 3 where there are warnings, else 0."""
        return 1 if self.failed or left_over else 3 if self.warned else 0


def predict_cases(
    cases: Mapping[str, Case], networks: Sequence[Network], output: Path, how: How, *, only_missing: bool
) -> Outcome:
    """Predict cases, write their segmentations, and say what each took and what is odd.

    Args:
        cases: name -> case.
        networks: of the folds.
        output: folder.
        how: to predict.
        only_missing: leave out cases whose segmentation is there.
    """
    outcome, model = Outcome(), networks[0].description
    for number, (name, case) in enumerate(cases.items(), start=1):
        file = output / f"{name}{model.file_ending}"
        if only_missing and is_finished(file, model) and (not how.dicom_seg or _dicom_seg(file, name).is_file()):
            continue
        head, start = f"[{number}/{len(cases)}] {name}", time.perf_counter()
        try:
            found, warnings = _predict(case, networks, file, how)
            if how.dicom_seg and case.series:
                write_dicom_seg(file, case.series, model, _dicom_seg(file, name))
        except Exception as error:  # one bad case must not cost the others
            outcome.failed.append(name)
            print(f"{head} FAILED: {last_line(error)}", file=sys.stderr)
            continue
        if warnings:
            outcome.warned.append(name)
        for warning in warnings:
            print(f"{head} WARNING: {warning}", file=sys.stderr)
        nothing = "" if found else ", nothing found"
        print(f"{head}: {time.perf_counter() - start:.1f} s{nothing}", flush=True)
    return outcome


def _dicom_seg(segmentation: Path, case: str) -> Path:
    return segmentation.with_name(f"{case}.seg.dcm")


def _predict(case: Case, networks: Sequence[Network], file: Path, how: How) -> tuple[bool, list[str]]:
    """Predict a case and write it; returns whether anything was found, and the warnings."""
    model = networks[0].description
    with case.files() as files:
        image = read_image(files, model)
        labels = predict_labels(image, networks, step_size=how.step_size, mirroring=how.mirroring)
        write_segmentation(labels, image, file, model)
    warnings = [*image.warnings, *compare_image(image, model), *compare_found(labels, image, model)]
    return bool(labels.any()), warnings
