"""The commands that write the student's plans and train it."""

import os
import shutil
from collections.abc import Sequence
from typing import Any

from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.compress.places import VARIANT, Places
from nnunetv2_hlfd.compress.plans import resolve_student
from nnunetv2_hlfd.compress.teacher import foreground
from nnunetv2_hlfd.models.fold import FINAL
from nnunetv2_hlfd.settings.settings import TEACHER_VARIABLE
from nnunetv2_hlfd.utilities.steps import Step


def plan_command(places: Places, options: CompressOptions) -> Sequence[str]:
    """The command that writes the student's settings into plans of their own.

    Raises:
        UserError: where no student fits.
    """
    settings: dict[str, Any] = {
        "student": resolve_student(places.source, options),
        **places.teaching.settings,
        "teacher_checkpoint": options.checkpoint,
        "seed": options.seed,
        **options.schedule,
    }
    axes = set(places.model.mirror_axes or ())
    knows_its_teacher = places.teaching.kind != "labels" and not options.control
    if not axes or (axes != set(range(len(places.model.input_shape) - 1)) and not knows_its_teacher):
        settings["mirroring"] = "none"  # a trainer without a teacher would mirror along all axes
    settings |= options.settings
    words = [word for name, value in settings.items() for word in (f"-{name}", _in_words(value))]
    names = ("-d", places.dataset, "-p", places.base_plans, "-name", VARIANT)
    return ("nnUNetv2_hlfd", "plan", *names, *words, "--overwrite")


def training_step(places: Places, options: CompressOptions, trainer: str, title: str) -> Step:
    """The training of a student; an unfinished one goes on from its last checkpoint."""
    fold = places.fold(trainer)
    names = places.source.folds if places.teaching.kind == "stored" else places.source.folds[:1]
    folds = [str(places.model.fold(name).path.absolute()) for name in names]

    def command() -> Sequence[str]:
        flags = fold.continuation()
        if not flags:
            shutil.rmtree(fold.path, ignore_errors=True)
        which = (places.dataset, places.model.configuration, "0", "-tr", trainer, "-p", places.plans)
        return ("nnUNetv2_hlfd", "train", *which, "-device", options.device, *flags)

    return Step(
        name=f"train_{trainer.removeprefix('nnUNetTrainer')}",
        title=title,
        product=fold.file(FINAL),
        command=command,
        total=options.epochs,
        labels=list(foreground(places.model)),
        environment={TEACHER_VARIABLE: os.pathsep.join(folds)},
    )


def _in_words(value: Any) -> str:
    """A setting's value as `nnUNetv2_hlfd plan` reads it."""
    if isinstance(value, dict):
        return ",".join(f"{name}={number}" for name, number in value.items())
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
