"""Checking and loading the frozen teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_hlfd.distillation.method import Outputs, TeacherOutputs, TeacherShape
from nnunetv2_hlfd.distillation.taps import Stage, TeacherTaps, read_stages, teacher_taps, trained_heads
from nnunetv2_hlfd.models.checkpoints import sha256
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.teacher.compatibility import check_compatible, check_patch, check_validation_cases, validated_cases
from nnunetv2_hlfd.teacher.search import StudentSide, find_teacher
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage


@dataclass(frozen=True, kw_only=True)
class TeacherNetwork:
    """One fold's network, its stages, their roles, and where it comes from (for the record)."""

    network: nn.Module
    stages: tuple[Stage, ...]
    taps: TeacherTaps
    origin: Mapping[str, Any]


class Teacher:
    """Frozen networks (one, or one for each fold and folder), in eval mode and without gradients."""

    def __init__(self, networks: Sequence[TeacherNetwork]) -> None:
        self.networks = list(networks)

    def to(self, device: torch.device) -> "Teacher":
        """Move the networks."""
        for each in self.networks:
            each.network.to(device)
        return self

    @property
    def shape(self) -> TeacherShape:
        """What a method's adapters are built from."""
        first = self.networks[0]
        return TeacherShape(stages=first.stages, taps=first.taps, networks=len(self.networks))

    @torch.no_grad()
    def __call__(self, data: Tensor) -> TeacherOutputs:
        """Run every network on a batch (B, C, *spatial)."""
        outputs = []
        for each in self.networks:
            features = each.network.encoder(data)  # type: ignore[operator]
            logits = each.network.decoder(features)  # type: ignore[operator]
            outputs.append(Outputs(features=features, logits=logits))
        return TeacherOutputs(networks=outputs, taps=self.networks[0].taps)

    def __repr__(self) -> str:  # nnU-Net writes every attribute into debug.json
        return f"Teacher({len(self.networks)} networks)"


def load_teacher(student: StudentSide, settings: Settings) -> Teacher:
    """Find, check, load and freeze the teacher.

    Raises:
        UserError: where none is found or it does not fit; the message says what to do.
    """
    checkpoints = find_teacher(student, settings)
    if settings.teacher_fold is None and student.fold != "all":
        for file in checkpoints:
            check_validation_cases(student.validation_cases, file.parent, student.dataset_json["file_ending"])
    networks = [_load_network(file, student, settings) for file in checkpoints]
    for each in networks[1:]:
        _check_averaging(networks[0], each)
    return Teacher(networks)


def check_same_teacher(found: Sequence[Mapping[str, Any]], recorded: Sequence[Mapping[str, Any]]) -> None:
    """A run is continued with the teacher it was started with.

    Args:
        found: origins of the teacher's networks now.
        recorded: those in the checkpoint; empty at the start of a run.

    Raises:
        UserError: naming the files whose SHA-256 differ.
    """
    if recorded and [each["sha256"] for each in found] != [each["sha256"] for each in recorded]:
        expected, got = (
            ", ".join(f"{_place(each)} (SHA-256 {each['sha256'][:12]})" for each in side) for side in (recorded, found)
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
    for name, ours, theirs in (
        ("stages (channels and total strides)", *([_words(each.stages) for each in (first, other)])),
        ("trained intermediate outputs", first.taps.heads, other.taps.heads),
    ):
        if ours != theirs:
            raise UserError(
                f"The teachers' outputs cannot be averaged, their {name} differ: {ours} in {_place(first.origin)}, "
                f"{theirs} in {_place(other.origin)}. Let one of them teach, or train them with the same plans."
            )


def _words(stages: Sequence[Stage]) -> str:
    return ", ".join(f"{each.channels} at {'x'.join(map(str, each.stride))}" for each in stages)


def _place(origin: Mapping[str, Any]) -> str:
    return f"{origin['folder']}/{origin['checkpoint']}"


def _load_network(checkpoint: Path, student: StudentSide, settings: Settings) -> TeacherNetwork:
    """Check and restore one network, in the order that runs nothing and allocates nothing before it is checked."""
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
    patch_size = student.plans.get_configuration(student.configuration).patch_size
    with refuse_damage(folder / "plans.json"):
        stages = read_stages(network)
        check_patch(patch_size, stages[-1].stride, folder)
        taps = teacher_taps(stages, trained_heads(network.decoder), settings.late_max_stride)  # type: ignore[arg-type]
    held_out = set(student.validation_cases)
    validated = set(validated_cases(checkpoint.parent, student.dataset_json["file_ending"]))
    origin = {
        "folder": str(folder),
        "checkpoint": f"{checkpoint.parent.name}/{checkpoint.name}",
        "sha256": sha256(checkpoint),
        "trainer": model.network_trainer,
        "plans_name": model.plans.plans_name,
        "may_have_seen_validation_cases": student.fold != "all" and not held_out <= validated,
    }
    return TeacherNetwork(network=network, stages=stages, taps=taps, origin=origin)
