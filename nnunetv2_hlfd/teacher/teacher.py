"""Checking and loading the frozen teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_hlfd.distillation.method import TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.models.checkpoints import sha256
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.teacher.compatibility import check_compatible, check_validation_cases, validated_cases
from nnunetv2_hlfd.teacher.search import StudentSide, find_teacher
from nnunetv2_hlfd.teacher.shape import final_map, read_shape
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage

LEAK_WARNING = "WARNING: the teacher may have seen this fold's validation cases: its results mean little."


@dataclass(frozen=True, kw_only=True)
class TeacherNetwork:
    """One fold's network, its stages and their roles as far as they are needed, and its origin for the record."""

    network: nn.Module
    shape: TeacherShape
    origin: Mapping[str, Any]


class Teacher:
    """Frozen networks (one, or one for each fold and folder), in eval mode and without gradients."""

    def __init__(self, networks: Sequence[TeacherNetwork]) -> None:
        self.networks = list(networks)

    def to(self, device: torch.device) -> "Teacher":
        """Move the networks."""
        for teacher in self.networks:
            teacher.network.to(device)
        return self

    @property
    def shape(self) -> TeacherShape:
        """What a method's adapters are built from."""
        return replace(self.networks[0].shape, networks=len(self.networks))

    @torch.no_grad()
    def __call__(self, data: Tensor) -> TeacherOutputs:
        """Run every network on a batch (B, C, *spatial)."""
        return TeacherOutputs(networks=[_run(teacher, data) for teacher in self.networks])

    def __repr__(self) -> str:  # nnU-Net writes every attribute into debug.json
        return f"Teacher({len(self.networks)} networks)"


def _run(teacher: TeacherNetwork, data: Tensor) -> Outputs:
    """Ask a network whose stages nobody needs, or can read, for its final map alone."""
    if teacher.shape.stages:
        return Outputs.of(teacher.network, data)
    return Outputs(features=(), logits=(final_map(teacher.network(data)),))


def load_teacher(student: StudentSide, settings: Settings, needs: Mapping[str, frozenset[str]]) -> Teacher:
    """Find, check, load and freeze the teacher.

    Args:
        student: what the teacher is checked against.
        settings: of the training.
        needs: name of each method -> what it asks of a teacher.

    Raises:
        UserError: where none is found or it does not fit; the message says what to do.
    """
    checkpoints = find_teacher(student, settings)
    if settings.teacher_fold is None and student.fold != "all":
        for file in checkpoints:
            check_validation_cases(student.validation_cases, file.parent, student.dataset_json["file_ending"])
    networks = [_load_network(file, student, settings, needs) for file in checkpoints]
    for other in networks[1:]:
        _check_averaging(networks[0], other)
    return Teacher(networks)


def check_same_teacher(found: Sequence[Mapping[str, Any]], recorded: Sequence[Mapping[str, Any]]) -> None:
    """A run is continued with the teacher it was started with.

    Args:
        found: origins of the teacher's networks now.
        recorded: those in the checkpoint; empty at the start of a run.

    Raises:
        UserError: naming the files whose SHA-256 differ.
    """
    if recorded and [origin["sha256"] for origin in found] != [origin["sha256"] for origin in recorded]:
        expected, got = (
            ", ".join(f"{_place(origin)} (SHA-256 {origin['sha256'][:12]})" for origin in side)
            for side in (recorded, found)
        )
        raise UserError(
            f"This run was started with another teacher: expected {expected}, found {got}. Put the recorded teacher "
            f"back, or start again without --c."
        )


def _check_averaging(first: TeacherNetwork, other: TeacherNetwork) -> None:
    """Networks that teach together are averaged map by map, so their maps must correspond.

    Raises:
        UserError: with what differs.
    """
    features, other_features = _features(first.shape), _features(other.shape)
    for name, value in features.items():
        if value != other_features[name]:
            raise UserError(
                f"The teachers' outputs cannot be averaged, their {name} differ: {value} in {_place(first.origin)}, "
                f"{other_features[name]} in {_place(other.origin)}. Let one of them teach, or train them with the same "
                f"plans."
            )


def _features(shape: TeacherShape) -> dict[str, str]:
    """What networks that teach together must have in common, in words."""
    stages = [f"{stage.channels} at {'x'.join(map(str, stage.stride))}" for stage in shape.stages]
    return {
        "stages (channels and total strides)": ", ".join(stages) or "none that can be read",
        "trained intermediate outputs": str(shape.taps.heads if shape.taps else ()),
    }


def _place(origin: Mapping[str, Any]) -> str:
    return f"{origin['folder']}/{origin['checkpoint']}"


def _load_network(
    checkpoint: Path, student: StudentSide, settings: Settings, needs: Mapping[str, frozenset[str]]
) -> TeacherNetwork:
    folder = checkpoint.parent.parent
    model = ModelFolder.open(folder, checkpoint)
    with refuse_damage(f"A file in {folder} (plans.json, dataset.json or {checkpoint.name})"):
        check_compatible(
            student.plans,
            model.plans,
            (student.configuration, model.configuration),
            (student.dataset_json, model.dataset_json),
            folder,
        )
    network = model.network(checkpoint, deep_supervision=True)
    with refuse_damage(folder / "plans.json"):
        shape = read_shape(
            network,
            needs,
            folder,
            patch_size=student.plans.get_configuration(student.configuration).patch_size,
            num_input_channels=model.input_shape[0],
            late_max_stride=settings.late_max_stride,
        )
    held_out = set(student.validation_cases)
    validated = set(validated_cases(checkpoint.parent, student.dataset_json["file_ending"]))
    origin = {
        "folder": str(folder),
        "checkpoint": f"{checkpoint.parent.name}/{checkpoint.name}",
        "sha256": sha256(checkpoint),
        "trainer": model.network_trainer,
        "plans_name": model.plans.plans_name,
        "mirroring_axes": model.mirror_axes,
        "may_have_seen_validation_cases": student.fold != "all" and not held_out <= validated,
    }
    return TeacherNetwork(network=network, shape=shape, origin=origin)
