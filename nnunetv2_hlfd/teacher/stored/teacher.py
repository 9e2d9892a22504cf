"""A teacher that answers from its stored maps."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from nnunetv2_hlfd.distillation.method import TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.networks.size import Size
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.teacher.checkpoint import find_checkpoints
from nnunetv2_hlfd.teacher.search import StudentSide
from nnunetv2_hlfd.teacher.stored.checks import check_cases, check_needs
from nnunetv2_hlfd.teacher.stored.dataset import WithMaps
from nnunetv2_hlfd.teacher.stored.encoding import decode
from nnunetv2_hlfd.teacher.stored.folder import MapsFolder, find_maps
from nnunetv2_hlfd.utilities.errors import UserError


class StoredTeacher:
    """Final maps from a folder, in place of `Teacher`'s networks.

    Attributes:
        origins: of the networks that made the maps, with the hash of these, for the record.
        channels: of the maps.
        shape: without stages: a stored teacher has nothing but its final map.
    """

    shape = TeacherShape()

    def __init__(self, maps: MapsFolder, origins: Sequence[Mapping[str, Any]]) -> None:
        self.maps, self.origins = maps, [dict(origin) for origin in origins]
        self.channels = maps.description.channels

    def __call__(self, codes: Tensor) -> TeacherOutputs:
        """What was stored of a batch, from its codes (B, K, *spatial)."""
        logits = decode(codes, self.maps.description.regions)
        return TeacherOutputs(networks=[Outputs(features=(), logits=(logits,))])

    def with_maps(self, dataset: Any) -> WithMaps:
        """A data set of nnU-Net whose images carry the maps as last channels."""
        return WithMaps(dataset, self.maps.path)

    def size(self, patch_size: Sequence[int], _num_input_channels: int) -> Size:
        """Parameters and operations of one of the networks on a patch."""
        return self.maps.description.size(patch_size)

    def __repr__(self) -> str:  # nnU-Net writes every attribute of a trainer into debug.json
        return f"StoredTeacher({self.maps.path.name})"


def find_stored_teacher(
    student: StudentSide, training: Any, settings: Settings, needs: Mapping[str, frozenset[str]]
) -> StoredTeacher:
    """Find the maps of a student's teacher and check that they are those of its training cases.

    Args:
        student: what the teacher is checked against.
        training: nnU-Net's data set of the training cases.
        settings: of the training.
        needs: name of each method -> what it asks of a teacher.

    Raises:
        UserError: for a method that needs more than the final map, a teacher that does not fit, or missing maps.
    """
    check_needs(needs)
    origins = [checkpoint.origin for checkpoint in find_checkpoints(student, settings)]
    data = Path(training.source_folder)
    names = [student.plans.dataset_name, student.configuration, str(student.fold), "-p", student.plans_names[0]]
    command = shlex.join(["nnUNetv2_hlfd", "teach", *names])
    maps = find_maps(data, settings.teacher_maps, [origin["sha256"] for origin in origins])
    if maps is None:
        raise UserError(f"No stored maps of the teacher in {origins[0]['folder']} beside {data}. Make them: {command}")
    check_cases(maps, training, command)
    stored = {"maps": str(maps.path), "maps_sha256": maps.digest(training.identifiers)}
    return StoredTeacher(maps, [{**origin, **stored} for origin in origins])
