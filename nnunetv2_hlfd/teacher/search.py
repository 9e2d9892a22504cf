"""Where the teacher of a student is looked for."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.settings.settings import TEACHER_VARIABLE, Settings, teacher_folders_from_environment
from nnunetv2_hlfd.utilities.errors import UserError

_TEACHER_TRAINERS = ("nnUNetTrainer", "nnUNetTrainerTeacher")


@dataclass(frozen=True, kw_only=True)
class StudentSide:
    """What the teacher is checked against. `plans_names`: the student's own, then the base plans'."""

    plans: PlansManager
    plans_names: Sequence[str]
    configuration: str
    dataset_json: Mapping[str, Any]
    fold: int | str
    validation_cases: Sequence[str]
    results_folder: Path


def find_teacher(student: StudentSide, settings: Settings) -> list[Path]:
    """The checkpoints of the teacher, one of each network.

    Default: same configuration and same fold (a teacher of another fold has seen this fold's validation cases), under
    the student's own plans name, then the base plans'; the first model folder that holds it. Folders that the
    environment names teach together, each has to hold it, or is the folder of the fold that is meant (.../fold_2). A
    student of fold `all` learns from fold_all, else from the folds 0-4 together; every student does that learns from
    each case's fold (teacher_maps crossfit).

    Raises:
        UserError: with every place that was looked at.
    """
    if settings.teacher_maps == "crossfit" and settings.teacher_fold is not None:
        raise UserError(
            f"teacher_maps crossfit takes the teacher of every fold, teacher_fold names fold {settings.teacher_fold} "
            f"alone. Leave out one of them."
        )
    named = teacher_folders_from_environment()
    if named:
        found = [_checkpoints(folder, student, settings) for folder in named]
        if all(found):
            return [file for files in found for file in files]
        looked_at = [folder for folder, files in zip(named, found, strict=True) if not files]
    else:
        looked_at = [
            student.results_folder / f"{trainer}__{plans_name}__{student.configuration}"
            for plans_name in student.plans_names
            for trainer in _TEACHER_TRAINERS
        ]
        for folder in looked_at:
            if files := _checkpoints(folder, student, settings):
                return files
    raise UserError(_not_found(looked_at, student, settings))


def is_named(fold_folder: Path) -> bool:
    """Whether the environment names this very fold, and not its model folder."""
    return fold_folder in teacher_folders_from_environment()


def _checkpoints(folder: Path, student: StudentSide, settings: Settings) -> list[Path]:
    """The checkpoints of the wanted fold or folds in a model folder; empty where one is missing."""
    if (folder / settings.teacher_checkpoint).is_file():
        return [folder / settings.teacher_checkpoint]
    for folds in _fold_choices(student, settings):
        files = [folder / f"fold_{fold}" / settings.teacher_checkpoint for fold in folds]
        if all(file.is_file() for file in files):
            return files
    return []


def _fold_choices(student: StudentSide, settings: Settings) -> list[list[int | str]]:
    """Folds that may teach together, in order of preference."""
    if settings.teacher_maps == "crossfit":
        return [list(range(5))]
    if settings.teacher_fold is not None:
        return [[settings.teacher_fold]]
    return [["all"], list(range(5))] if student.fold == "all" else [[student.fold]]


def _not_found(looked_at: Sequence[Path], student: StudentSide, settings: Settings) -> str:
    choices = _fold_choices(student, settings)
    names = ["fold_" + ("0-4" if len(folds) > 1 else str(folds[0])) for folds in choices]
    looked = "\n  ".join(str(folder / name / settings.teacher_checkpoint) for folder in looked_at for name in names)
    fold, plans = str(choices[0][0]), student.plans_names[-1]
    command = shlex.join(["nnUNetv2_train", student.plans.dataset_name, student.configuration, fold, "-p", plans])
    return (
        f"No teacher found. Looked at:\n  {looked}\n{_there_instead(looked_at, student, settings)}"
        f"Train one with: {command}\nor name the folder of a trained model "
        f"(.../TRAINER__PLANS__CONFIGURATION) with the environment variable {TEACHER_VARIABLE} (several are separated "
        f"by '{os.pathsep}'); another fold than the student's needs the setting teacher_fold, or is named itself "
        f"(.../fold_2)."
    )


def _there_instead(looked_at: Sequence[Path], student: StudentSide, settings: Settings) -> str:
    """A line on checkpoints of other names in folds that lack the wanted one, with the setting that takes them."""
    names = [fold for folds in _fold_choices(student, settings) for fold in folds]
    folds = [folder / f"fold_{name}" for folder in looked_at for name in names]
    lacking = [fold for fold in folds if not (fold / settings.teacher_checkpoint).is_file()]
    found = [file for fold in lacking for file in sorted(fold.glob("checkpoint_*.pth"))]
    if not found:
        return ""
    return (
        f"There is only {', '.join(map(str, found))}. To learn from another checkpoint than "
        f"{settings.teacher_checkpoint}, set: nnUNetv2_hlfd plan ... -teacher_checkpoint {shlex.quote(found[0].name)}\n"
    )
