"""A method with its trained adapters, from what a training has put into its checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2_hlfd.distillation.combined import CombinedMethod, combine, method_classes
from nnunetv2_hlfd.distillation.method import Task, TeacherShape
from nnunetv2_hlfd.distillation.registry import PREFIX, find_method, method_names
from nnunetv2_hlfd.distillation.taps import Stage, TeacherTaps
from nnunetv2_hlfd.settings.settings import Settings


def restore_teacher_shape(shape: Mapping[str, Any]) -> TeacherShape:
    """The shape of the teacher that a training was started with, from `dataclasses.asdict` of it."""
    return TeacherShape(
        stages=tuple(Stage(**stage) for stage in shape["stages"]),
        taps=None if shape["taps"] is None else TeacherTaps(**shape["taps"]),
        networks=shape["networks"],
    )


def restore_method(extras: Mapping[str, Any], student_stages: Sequence[Stage], task: Task) -> CombinedMethod | None:
    """Build the method of a training and load its adapters.

    Args:
        extras: what this package has added to the checkpoint.
        student_stages: of the student.
        task: what its outputs mean.

    Returns:
        None for a training without a method (the student alone, a teacher), or one that is not installed here.

    Raises:
        UserError: for settings that this version does not know; more kinds for damaged content.
    """
    name = str(extras.get("trainer", "")).removeprefix(PREFIX)
    if "teacher_shape" not in extras or name not in method_names():
        return None
    settings = Settings.from_dict(extras["settings"])
    methods = method_classes(name, find_method(name), settings)
    shape = restore_teacher_shape(extras["teacher_shape"])
    method = combine(methods, student_stages, shape, task, settings, extras.get("given", extras["settings"]))
    method.load_state_dict(extras["adapters"])
    return method.eval().requires_grad_(False)
