"""The checkpoints that teach a student: found and checked, their networks not loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.models.checkpoints import sha256
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.models.split import held_out_cases
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.teacher.compatibility import check_compatible, check_validation_cases
from nnunetv2_hlfd.teacher.search import StudentSide, find_teacher, is_named
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage

LEAK_WARNING = "WARNING: the teacher may have seen this fold's validation cases: its results mean little."


@dataclass(frozen=True, kw_only=True)
class TeacherCheckpoint:
    """One fold of a teacher.

    Attributes:
        file: the checkpoint.
        model: the folder that it belongs to.
        held_out: names of the cases that this fold was certainly not trained on.
        origin: for the record.
    """

    file: Path
    model: ModelFolder
    held_out: Sequence[str]
    origin: Mapping[str, Any]


def find_checkpoints(student: StudentSide, settings: Settings, *, same_spacing: bool = True) -> list[TeacherCheckpoint]:
    """Find and check the teacher of a student.

    Args:
        student: what the teacher is checked against.
        settings: of the training.
        same_spacing: whether the teacher has to be of the student's spacing.

    Raises:
        UserError: where none is found or it does not fit; the message says what to do.
    """
    same_fold = settings.teacher_fold is None and settings.teacher_maps != "crossfit" and student.fold != "all"
    files = find_teacher(student, settings)
    return [_read(file, student, same_fold=same_fold, same_spacing=same_spacing) for file in files]


def check_same_teacher(found: Sequence[Mapping[str, Any]], recorded: Sequence[Mapping[str, Any]]) -> None:
    """A run is continued with the teacher it was started with, and with the same stored maps.

    Args:
        found: origins of the teacher's networks now.
        recorded: those in the checkpoint; empty at the start of a run.

    Raises:
        UserError: naming the files whose SHA-256 differ.
    """
    if recorded and [_hashes(origin) for origin in found] != [_hashes(origin) for origin in recorded]:
        expected, got = (", ".join(_in_words(origin) for origin in side) for side in (recorded, found))
        raise UserError(
            f"This run was started with another teacher: expected {expected}, found {got}. Put the recorded teacher "
            f"back, or start again without --c."
        )


def place(origin: Mapping[str, Any]) -> str:
    """Where a network came from, for messages."""
    return f"{origin['folder']}/{origin['checkpoint']}"


def _read(file: Path, student: StudentSide, *, same_fold: bool, same_spacing: bool) -> TeacherCheckpoint:
    """Read and check one fold of a teacher, which has to be that of the student where `same_fold`."""
    folder = file.parent.parent
    model = ModelFolder.open(folder, file)
    with refuse_damage(f"A file in {folder} (plans.json, dataset.json or {file.name})"):
        check_compatible(
            student.plans,
            model.plans,
            (student.configuration, model.configuration),
            (student.dataset_json, model.dataset_json),
            folder,
            same_spacing=same_spacing,
        )
    if same_fold and not is_named(file.parent):
        check_validation_cases(student.validation_cases, file.parent, model.file_ending)
    held_out = held_out_cases(model, file.parent.name.removeprefix("fold_"))
    seen = student.fold != "all" and not {*student.validation_cases} <= {*held_out}
    origin = {**describe_origin(model, file), "may_have_seen_validation_cases": seen}
    return TeacherCheckpoint(file=file, model=model, held_out=held_out, origin=origin)


def describe_origin(model: ModelFolder, file: Path) -> dict[str, Any]:
    """Describe a checkpoint of a model, for the record."""
    return {
        "folder": str(file.parent.parent),
        "checkpoint": f"{file.parent.name}/{file.name}",
        "sha256": sha256(file),
        "trainer": model.network_trainer,
        "plans_name": model.plans.plans_name,
        "mirroring_axes": model.mirror_axes,
    }


def _hashes(origin: Mapping[str, Any]) -> tuple[str, str | None]:
    return origin["sha256"], origin.get("maps_sha256")


def _in_words(origin: Mapping[str, Any]) -> str:
    maps = f", stored maps {origin['maps_sha256'][:12]}" if "maps_sha256" in origin else ""
    return f"{place(origin)} (SHA-256 {origin['sha256'][:12]}{maps})"
