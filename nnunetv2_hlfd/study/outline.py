"""The runs of a study whose data set is not there yet, as far as its file tells them."""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.study.plan import has_teacher
from nnunetv2_hlfd.study.spec import Study
from nnunetv2_hlfd.training.find_trainer import find_any_trainer
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search

HEAD = ("Arm", "Seed", "Fold", "Trainer", "Teacher", "Steps")


def outline(study: Study) -> list[Sequence[str]]:
    """Rows for `HEAD`, in the order of the runs.

    Raises:
        UserError: for a trainer that is not there.
    """
    extend_trainer_search()
    rows: list[Sequence[str]] = []
    for fold in study.folds:
        for teacher in study.teachers:
            if teacher.folder is None:
                seed, trainer = teacher.settings["seed"], find_any_trainer(teacher.trainer)
                rows.append(_row(teacher.name, seed, fold, trainer, teacher.settings, "-"))
        for seed in study.seeds:
            for arm in study.arms:
                trainer = find_any_trainer(arm.trainer)
                taught_by = arm.teacher if has_teacher(trainer, arm.settings) else "-"
                rows.append(_row(arm.name, seed, fold, trainer, arm.settings, taught_by))
    return rows


def _row(name: str, seed: int, fold: int, trainer: Any, given: Mapping[str, Any], teacher: str) -> Sequence[str]:
    settings = Settings.from_dict({**trainer.defaults, **given})
    steps = f"{settings.epochs} x {settings.num_iterations_per_epoch}"
    return name, str(seed), str(fold), trainer.__name__, teacher, steps
