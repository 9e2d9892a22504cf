"""From a study to its runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_results

from nnunetv2_hlfd.datasets.dataset_json import read_dataset_json
from nnunetv2_hlfd.datasets.locations import find_dataset, results_folder
from nnunetv2_hlfd.models.split import check_fold
from nnunetv2_hlfd.plans.plans_check import check_plans
from nnunetv2_hlfd.plans.preprocessed import check_preprocessed, find_plans
from nnunetv2_hlfd.plans.variants import write_variant
from nnunetv2_hlfd.settings.settings import Settings, given_settings
from nnunetv2_hlfd.study.checks import check_existing_teacher, check_extras, check_runs
from nnunetv2_hlfd.study.runs import Run
from nnunetv2_hlfd.study.spec import ArmSpec, Study, TeacherSpec
from nnunetv2_hlfd.training.distillation_trainer import DistillationTrainer
from nnunetv2_hlfd.training.find_trainer import find_any_trainer
from nnunetv2_hlfd.training.scheduled_trainer import ScheduledTrainer
from nnunetv2_hlfd.training.student_trainer import nnUNetTrainerStudent
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json


def plan_runs(study: Study) -> list[Run]:
    """All runs in the order in which they are worth most: fold by fold, teachers, then all arms of a seed.

    Raises:
        UserError: for a data set, plans, trainer or teacher that is not there, or folders with other settings.
    """
    extend_trainer_search()
    dataset, file = locate(study)
    plans = read_json(file)
    for fold in study.folds:
        check_fold(dataset, fold)
    check_extras(study.report, read_dataset_json(file.parent / "dataset.json"))
    planner = _Planner(study, dataset, given_settings(plans))
    runs = [run for fold in study.folds for run in planner.fold(fold)]
    check_runs(runs)
    return runs


def locate(study: Study) -> tuple[str, Path]:
    """Name of the data set and file of the plans.

    Raises:
        UserError: where the data set is not planned and preprocessed.
    """
    results_folder()  # is set: rather now than in every run
    dataset = find_dataset(study.dataset)
    file = find_plans(dataset, study.plans)
    plans = read_json(file)
    check_plans(plans, file)
    check_preprocessed(plans, study.configuration)
    return dataset, file


class _Planner:
    """What the runs of one study have in common."""

    def __init__(self, study: Study, dataset: str, given: Mapping[str, Any]) -> None:
        self.study, self.dataset = study, dataset
        self.given = given  # plans that are a variant themselves hand their settings on
        self.arms = [(arm, _trainer(arm.trainer, nnUNetTrainerStudent, f"arms: {arm.name}")) for arm in study.arms]
        used = {arm.teacher for arm, trainer in self.arms if has_teacher(trainer, {**given, **arm.settings})}
        self.save_probabilities = bool({"paper_evaluation", "calibration"} & study.report.keys())
        first = study.teachers[0]
        self.teachers = [teacher for teacher in study.teachers if teacher is first or teacher.name in used]

    def fold(self, fold: int) -> list[Run]:
        """Teachers to train, then every arm, seed by seed."""
        runs, folders = [], {}
        for teacher in self.teachers:
            if teacher.folder is None:
                run = self._teacher_run(teacher, fold)
                runs.append(run)
                folders[teacher.name] = run.model_folder
            else:
                check_existing_teacher(teacher.folder, fold, self.dataset, probabilities=self.save_probabilities)
                folders[teacher.name] = teacher.folder
        arms = [(arm, trainer, seed) for seed in self.study.seeds for arm, trainer in self.arms]
        return runs + [self._arm_run(arm, trainer, seed, fold, folders) for arm, trainer, seed in arms]

    def _teacher_run(self, teacher: TeacherSpec, fold: int) -> Run:
        trainer = _trainer(teacher.trainer, ScheduledTrainer, f"teachers: {teacher.name}")
        variant = f"{self.study.study}_{teacher.name}"
        return self._run(teacher.name, trainer, variant, fold, teacher.settings, is_teacher=True)

    def _arm_run(
        self, arm: ArmSpec, trainer: type[ScheduledTrainer], seed: int, fold: int, teachers: Mapping[str, Path]
    ) -> Run:
        given = {**self.given, **arm.settings}
        taught_by = teachers[arm.teacher] if has_teacher(trainer, given) else None
        variant = f"{self.study.study}_{arm.name}.s{seed}"
        return self._run(arm.name, trainer, variant, fold, {**arm.settings, "seed": seed}, teacher=taught_by)

    def _run(
        self, arm: str, trainer: type[ScheduledTrainer], variant: str, fold: int, given: Mapping[str, Any], **more: Any
    ) -> Run:
        return Run(
            arm=arm,
            trainer=trainer,
            dataset=self.dataset,
            configuration=self.study.configuration,
            plans=self.study.plans,
            variant=variant,
            fold=fold,
            given={**self.given, **given},
            save_probabilities=self.save_probabilities,
            **more,
        )


def has_teacher(trainer: Any, given: Mapping[str, Any]) -> bool:
    """Whether an arm learns from a teacher or starts with its weights.

    Args:
        trainer: its class.
        given: its settings, where they differ from the trainer's own.
    """
    settings = Settings.from_dict({**trainer.defaults, **given})
    return issubclass(trainer, DistillationTrainer) or settings.initial_weights == "teacher"


def teacher_folder(study: Study, runs: Sequence[Run]) -> Path:
    """Model folder of the study's first teacher."""
    first = study.teachers[0]
    return first.folder or next(run.model_folder for run in runs if run.is_teacher and run.arm == first.name)


def write_plans(runs: Sequence[Run]) -> None:
    """Write the plans variants that are not there yet."""
    for run in runs:
        if not run.plans_file.is_file():
            write_variant(run.dataset, run.plans, run.variant, dict(run.given))


def study_folder(study: Study, runs: Sequence[Run]) -> Path:
    """Where logs, the table of runs and the report go, beside the models."""
    return Path(str(nnUNet_results)) / runs[0].dataset / f"study_{study.study}"


def _trainer(name: str, base: type[ScheduledTrainer], place: str) -> type[ScheduledTrainer]:
    try:
        trainer = find_any_trainer(name)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    if not issubclass(trainer, base):
        raise UserError(f"{place}: expected a trainer of this package that is a {base.__name__}, got {name}.")
    return trainer
