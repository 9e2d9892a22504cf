"""What refuses a study before anything is written, and what its teachers must not have seen."""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed

from nnunetv2_hlfd.datasets.dataset_json import read_dataset_json
from nnunetv2_hlfd.datasets.splits import read_splits
from nnunetv2_hlfd.models.checkpoints import sha256
from nnunetv2_hlfd.models.fold import FINAL
from nnunetv2_hlfd.models.record import source_networks
from nnunetv2_hlfd.plans.identity import check_folder_settings
from nnunetv2_hlfd.plans.variants import variant_differences
from nnunetv2_hlfd.study.runs import Run, splits_file
from nnunetv2_hlfd.teacher.compatibility import check_validation_cases
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.optional_packages import needed


def check_extras(extras: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> None:
    """The labels that the report is to look at are there, and what pictures and surfaces are made with.

    Raises:
        UserError: naming what is missing.
    """
    names = [name for name in dataset_json["labels"] if name not in ("background", "ignore")]
    for key, label in extras.items():
        if isinstance(label, str) and label and label not in names:
            raise UserError(f"report: {key}: expected one of the labels {', '.join(names)}, got '{label}'.")
    if "pictures" in extras:
        needed("captum.attr", "pictures")
    if "surfaces" in extras:
        needed("monai.metrics", "surfaces")


def check_existing_teacher(folder: Path, fold: int, dataset: str, *, probabilities: bool = False) -> None:
    """The fold of an existing teacher is there and held out the cases that this split holds out.

    Before nnU-Net has made a split there is nothing to compare; the trainers check again.

    Args:
        folder: its model folder.
        fold: of the study.
        dataset: the study's.
        probabilities: whether the report needs those of its validation.

    Raises:
        UserError: where it is not or did not, or lacks the probabilities.
    """
    checkpoint = folder / f"fold_{fold}" / FINAL
    if not checkpoint.is_file():
        raise UserError(
            f"Expected the teacher's checkpoint {checkpoint}, found none. Train that fold, or leave it out."
        )
    validation = checkpoint.parent / "validation"
    if probabilities and not any(validation.glob("*.npz")):
        raise UserError(
            f"The report's paper_evaluation or calibration needs the probabilities (.npz) in {validation}, found none. "
            f"Make them with nnUNetv2_train ... {fold} --val --npz."
        )
    file = splits_file(dataset)
    if file.is_file():
        own, shared = folder / "dataset.json", Path(str(nnUNet_preprocessed)) / dataset / "dataset.json"
        ending = read_dataset_json(own if own.is_file() else shared)["file_ending"]
        check_validation_cases(read_splits(file)[fold]["val"], checkpoint.parent, ending)


def check_runs(runs: Sequence[Run]) -> None:
    """No two runs share a folder; what is there already was made with the same settings and teacher.

    Raises:
        UserError: naming the arm and what differs.
    """
    names = Counter((run.plans_name.lower(), run.fold) for run in runs)  # some file systems ignore the case
    checksum = functools.cache(sha256)  # many runs have the same teacher
    for run in runs:
        if names[run.plans_name.lower(), run.fold] > 1:
            raise UserError(f"Expected names that differ in more than their case, {run.plans_name} is there twice.")
        try:
            _check_variant(run)
            check_folder_settings(run.model_folder, run.settings, run.fold)
            _check_recorded_teacher(run, checksum)
        except ValueError as error:
            raise UserError(f"{run.arm}: {error}") from error


def _check_variant(run: Run) -> None:
    """Plans of the run's name that are there already have just its settings."""
    if differences := variant_differences(run.plans_file, dict(run.given)):
        raise UserError(
            f"{run.plans_file} exists with other settings ({differences}). Give the study or the arm another name, or "
            f"remove that file and what was trained with it."
        )


def _check_recorded_teacher(run: Run, checksum: Callable[[Path], str]) -> None:
    """A trained run learned from the teacher that the study names, as far as both are there."""
    if not run.teacher or not run.is_trained:
        return
    checkpoint = run.teacher / f"fold_{run.fold}" / run.settings.teacher_checkpoint
    networks = source_networks(run.fold_folder.record())
    if networks and checkpoint.is_file() and {network["sha256"] for network in networks} != {checksum(checkpoint)}:
        raise UserError(
            f"{run.fold_folder.path} learned from another teacher ({networks[0]['folder']}, "
            f"{networks[0]['checkpoint']}) than {checkpoint} is now. Give the arm another name, or remove that run."
        )


def check_teachers_were_blind(runs: Sequence[Run]) -> None:
    """Every finished student's record says that its teacher has not seen the fold's validation cases.

    Raises:
        UserError: naming the runs whose does not.
    """
    seen = []
    for run in runs:
        if run.teacher and run.is_finished:
            networks = source_networks(run.fold_folder.record())
            if not networks or any(network["may_have_seen_validation_cases"] for network in networks):
                seen.append(run.name)
    if seen:
        raise UserError(f"The teacher may have seen the validation cases of {', '.join(seen)}. Do not report them.")
