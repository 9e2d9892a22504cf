"""`nnUNetv2_hlfd teach`: the teacher's final maps of a student's training cases, predicted once and stored."""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_hlfd.deploy.teacher_pass import Student, TeacherPass
from nnunetv2_hlfd.distillation.method import FINAL, TeacherShape
from nnunetv2_hlfd.distillation.requests import MapRequest
from nnunetv2_hlfd.teacher.checkpoint import TeacherCheckpoint, find_checkpoints
from nnunetv2_hlfd.teacher.stored.checks import check_memory, check_needs
from nnunetv2_hlfd.teacher.teacher import load_teacher
from nnunetv2_hlfd.training.cascade import check_previous_stage
from nnunetv2_hlfd.training.throwaway import throwaway_trainer
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.lock import locked
from nnunetv2_hlfd.utilities.text import some_names


def teach(
    dataset: str,
    configuration: str,
    fold: str,
    plans: str,
    *,
    device: str,
    step_size: float,
    mirroring: bool,
    needs_of: str | None,
    dry_run: bool,
) -> None:
    """Make the maps of a student's training cases that are missing, and say how much that is.

    Args:
        dataset: nnU-Net's name or ID.
        configuration: such as 2d.
        fold: of the student.
        plans: identifier of the student's plans; their setting teacher_maps says which folds teach.
        device: cpu, cuda or mps.
        step_size: of the sliding window, in patches.
        mirroring: average over mirrored copies.
        needs_of: a trainer, whose needs beside the final map are stored as well.
        dry_run: only say how much.

    Raises:
        UserError: where no teacher fits, maps would need too much memory, or cannot be written.
    """
    if not 0 < step_size <= 1:
        raise UserError(f"Expected a -step_size above 0, at most 1, got {step_size}.")
    extend_trainer_search()
    with throwaway_trainer(dataset, configuration, fold, needs_of or "nnUNetTrainerStudent", plans, device) as trainer:
        student = _student_of(trainer)
    work = TeacherPass(student, choose_device(device), step_size, mirroring)
    done = len(student.dataset.identifiers) - len(work.missing)
    if done:
        print(f"{done} training cases have their maps in {work.maps.path}")
    if work.missing:
        print(work.estimate())
        if not dry_run:
            with locked(work.maps.path, "nnUNetv2_hlfd teach"):
                work.run()


def _student_of(trainer: Any) -> Student:
    """Everything that can refuse a pass, before a network is loaded."""
    channels, side = trainer.label_manager.num_segmentation_heads, trainer.student_side()
    checkpoints = find_checkpoints(side, trainer.settings)
    shape, requests = _asked_of(trainer)
    *_, initial_patch, _ = nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer)
    check_memory(channels + sum(request.channels(channels) for request in requests), initial_patch)
    training, _ = nnUNetTrainer.get_tr_and_val_datasets(trainer)  # a taught student's would carry maps already
    check_previous_stage(trainer, training.identifiers)
    student = Student(
        dataset=training,
        labels=trainer.label_manager,
        patch_size=trainer.configuration_manager.patch_size,
        teacher_maps="crossfit" if trainer.settings.teacher_maps == "crossfit" else "stored",
        checkpoints=checkpoints,
        requests=requests,
        shape=shape,
    )
    _check_held_out({case: student.networks(case) for case in training.identifiers}, checkpoints)
    return student


def _asked_of(trainer: Any) -> tuple[TeacherShape, Sequence[MapRequest]]:
    """Shape of the teacher and what a trainer asks of it beside its final map; a student alone asks nothing."""
    needs = trainer.needs()
    check_needs(needs)
    if not any(needed - {FINAL} for needed in needs.values()):
        return TeacherShape(), ()
    shape = load_teacher(trainer.student_side(), trainer.settings, needs).shape
    return shape, trainer.requests(shape)


def _check_held_out(networks: Mapping[str, Sequence[int]], checkpoints: Sequence[TeacherCheckpoint]) -> None:
    if learned := [case for case, numbers in networks.items() if not numbers]:
        raise UserError(
            f"teacher_maps crossfit takes the map of each training case from the fold that held it out. No validation "
            f"of the teacher in {checkpoints[0].model.path} has {some_names(learned)}: run nnUNetv2_train of each fold "
            f"again with --val, or set teacher_maps to stored."
        )
