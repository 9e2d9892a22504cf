"""The runs of a study: ordinary nnU-Net trainings, each with its own plans name, and how far they have come."""

import contextlib
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.file_path_utilities import get_output_folder
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_hlfd.compatibility import check_validation_cases
from nnunetv2_hlfd.config import TEACHER_VARIABLE, Settings
from nnunetv2_hlfd.identity import RECORD_FILE, check_folder_is_ours
from nnunetv2_hlfd.json_file import read_json
from nnunetv2_hlfd.scheduled_trainer import ScheduledTrainer
from nnunetv2_hlfd.student_trainer import nnUNetTrainerStudent
from nnunetv2_hlfd.study.spec import ArmSpec, Study, TeacherSpec
from nnunetv2_hlfd.trainer import DistillationTrainer
from nnunetv2_hlfd.training import continuation, extend_trainer_search
from nnunetv2_hlfd.variants import write_variant


@dataclass(frozen=True, kw_only=True)
class Run:
    """One fold of one model.

    Attributes:
        arm: its name in the study; a teacher's name for a teacher.
        variant: of the plans, appended to their name.
        given: settings that its plans variant holds.
        teacher: model folder of the teacher, for arms that learn from one.
        is_teacher: trained to teach, not an arm of the comparison.
    """

    arm: str
    trainer: type[ScheduledTrainer]
    dataset: str
    configuration: str
    plans: str
    variant: str
    fold: int
    given: Mapping[str, Any]
    teacher: Path | None = None
    is_teacher: bool = False

    @property
    def plans_name(self) -> str:
        """Of the variant."""
        return f"{self.plans}_{self.variant}"

    @property
    def name(self) -> str:
        """For logs and tables."""
        return f"{self.trainer.__name__}__{self.plans_name}__fold_{self.fold}"

    @property
    def settings(self) -> Settings:
        """All settings of the training."""
        return Settings.from_dict({**self.trainer.defaults, **self.given})

    @property
    def model_folder(self) -> Path:
        """Where nnU-Net writes it."""
        return Path(get_output_folder(self.dataset, self.trainer.__name__, self.plans_name, self.configuration))

    @property
    def fold_folder(self) -> Path:
        """Where nnU-Net writes this fold."""
        return self.model_folder / f"fold_{self.fold}"

    @property
    def is_finished(self) -> bool:
        """Whether it is trained and validated."""
        return (self.fold_folder / "validation" / "summary.json").is_file()

    @property
    def state(self) -> str:
        """In words."""
        if self.is_finished:
            return "finished"
        return {"--val": "to be validated", "--c": "interrupted"}.get("".join(continuation(self.fold_folder)), "new")

    def command(self, device: str) -> list[str]:
        """What a user would type; continues what was interrupted."""
        return [
            "nnUNetv2_hlfd", "train", self.dataset, self.configuration, str(self.fold), "-tr", self.trainer.__name__,
            "-p", self.plans_name, "-device", device, *continuation(self.fold_folder),
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """What the command needs beside nnU-Net's own variables."""
        return {TEACHER_VARIABLE: str(self.teacher)} if self.teacher else {}

    def shell_line(self, device: str) -> str:
        """The command with its environment, to be copied."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.environment().items()]
        return " ".join([*assignments, shlex.join(self.command(device))])


def plan_runs(study: Study) -> list[Run]:
    """All runs in the order in which they are worth most: fold by fold, teachers, then all arms of a seed.

    Raises:
        ValueError: for a data set, plans, trainer or teacher that is not there, or folders with other settings.
    """
    extend_trainer_search()
    try:
        dataset = maybe_convert_to_dataset_name(int(study.dataset) if study.dataset.isdigit() else study.dataset)
    except RuntimeError as error:  # nnU-Net's message says which data set or variable is missing
        raise ValueError(str(error)) from error
    if not (Path(str(nnUNet_preprocessed)) / dataset / f"{study.plans}.json").is_file():
        raise ValueError(
            f"Expected plans {study.plans} of {dataset}, found none. Make them with: nnUNetv2_plan_and_preprocess"
        )
    planner = _Planner(study, dataset)
    runs = [run for fold in study.folds for run in planner.fold(fold)]
    for run in runs:
        check_folder_is_ours(run.model_folder, run.settings, run.fold)
    return runs


class _Planner:
    """What the runs of one study have in common."""

    def __init__(self, study: Study, dataset: str) -> None:
        self.study, self.dataset = study, dataset
        self.arms = [(arm, _trainer(arm.trainer, nnUNetTrainerStudent, f"arms: {arm.name}")) for arm in study.arms]
        used = {arm.teacher for arm, trainer in self.arms if issubclass(trainer, DistillationTrainer)}
        self.teachers = [each for each in study.teachers if each.name in used or each is study.teachers[0]]

    def fold(self, fold: int) -> list[Run]:
        """Teachers to train, then every arm, seed by seed."""
        runs, folders = [], {}
        for teacher in self.teachers:
            if teacher.folder is None:
                run = self._teacher_run(teacher, fold)
                runs.append(run)
                folders[teacher.name] = run.model_folder
            else:
                _check_teacher(teacher.folder, fold, self.dataset)
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
        taught_by = teachers[arm.teacher] if issubclass(trainer, DistillationTrainer) else None
        variant = f"{self.study.study}_{arm.name}.s{seed}"
        return self._run(arm.name, trainer, variant, fold, {**arm.settings, "seed": seed}, teacher=taught_by)

    def _run(
        self, arm: str, trainer: type[ScheduledTrainer], variant: str, fold: int, given: Mapping[str, Any], **more: Any
    ) -> Run:
        return Run(
            arm=arm, trainer=trainer, dataset=self.dataset, configuration=self.study.configuration,
            plans=self.study.plans, variant=variant, fold=fold, given=given, **more,
        )  # fmt: skip


def teacher_folder(study: Study, runs: Sequence[Run]) -> Path:
    """Model folder of the study's first teacher."""
    first = study.teachers[0]
    return first.folder or next(run.model_folder for run in runs if run.is_teacher and run.arm == first.name)


def write_plans(runs: Sequence[Run]) -> None:
    """Write the plans variant of every run; one that is there already has to have the same settings."""
    for run in runs:
        write_variant(run.dataset, run.plans, run.variant, dict(run.given))


def check_teachers_were_blind(runs: Sequence[Run]) -> None:
    """Every finished student's record says that its teacher has not seen the fold's validation cases.

    Raises:
        ValueError: naming the runs whose does not.
    """
    seen = []
    for run in runs:
        record = run.fold_folder / RECORD_FILE
        if run.teacher and run.is_finished and record.is_file():
            networks = read_json(record).get("teacher", {}).get("networks", [])
            if not networks or any(each["may_have_seen_validation_cases"] for each in networks):
                seen.append(run.name)
    if seen:
        raise ValueError(f"The teacher may have seen the validation cases of {', '.join(seen)}. Do not report them.")


def _trainer(name: str, base: type[ScheduledTrainer], place: str) -> type[ScheduledTrainer]:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net tells every step of its search
            trainer = recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise ValueError(f"{place}: unknown trainer {name}. nnUNetv2_hlfd train -h lists those of this package.") from (
            error
        )
    if not issubclass(trainer, base):
        raise ValueError(f"{place}: expected a trainer of this package that is a {base.__name__}, got {name}.")
    return trainer


def _check_teacher(folder: Path, fold: int, dataset: str) -> None:
    """The fold of an existing teacher is there and held out the cases that this split holds out.

    Before nnU-Net has made a split there is nothing to compare; the trainers check again.
    """
    checkpoint = folder / f"fold_{fold}" / "checkpoint_final.pth"
    if not checkpoint.is_file():
        raise ValueError(
            f"Expected the teacher's checkpoint {checkpoint}, found none. Train that fold, or leave it out."
        )
    preprocessed = Path(str(nnUNet_preprocessed)) / dataset
    if (preprocessed / "splits_final.json").is_file():
        splits = load_json(str(preprocessed / "splits_final.json"))
        if fold < len(splits):
            ending = read_json(preprocessed / "dataset.json")["file_ending"]
            check_validation_cases(splits[fold]["val"], checkpoint.parent, ending)


def study_folder(study: Study, runs: Sequence[Run]) -> Path:
    """Where logs, the table of runs and the report go, beside the models."""
    return Path(str(nnUNet_results)) / runs[0].dataset / f"study_{study.study}"
