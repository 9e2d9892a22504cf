"""A teacher that answers from its stored maps."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nnunetv2_hlfd.distillation.method import FINAL, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, Source, TeacherOutputs
from nnunetv2_hlfd.distillation.requests import MapRequest, attention_request, heads_request
from nnunetv2_hlfd.distillation.taps import Stage
from nnunetv2_hlfd.networks.size import Size
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.teacher.checkpoint import find_checkpoints
from nnunetv2_hlfd.teacher.compatibility import check_patch
from nnunetv2_hlfd.teacher.search import StudentSide
from nnunetv2_hlfd.teacher.stored.checks import check_cases, check_needs
from nnunetv2_hlfd.teacher.stored.coarse import decode_attention, decode_heads
from nnunetv2_hlfd.teacher.stored.dataset import WithMaps
from nnunetv2_hlfd.teacher.stored.encoding import decode
from nnunetv2_hlfd.teacher.stored.folder import MapsFolder, choose_maps, find_maps
from nnunetv2_hlfd.utilities.errors import UserError


@dataclass(frozen=True, kw_only=True)
class StoredOutputs(TeacherOutputs):
    """What was stored of a batch; `networks` has the final map alone.

    Attributes:
        stages: of the teacher.
        coarse: codes (B, C, *spatial) of every other map, cut and warped with the image.
    """

    stages: Sequence[Stage]
    coarse: Mapping[MapRequest, Tensor]

    def unified_probabilities(self, heads: Sequence[int], temperature: float, regions: bool) -> Tensor:
        """As a live teacher's; see `TeacherOutputs`."""
        if tuple(heads) == (0,):
            return self.probabilities(0, temperature, regions)
        codes = self.coarse[heads_request(heads, temperature)]
        return decode_heads(codes, self.unified_size(heads), regions)

    def attention(self, stage: int, exponent: float, source: Source = "encoder") -> Tensor:
        """As a live teacher's; see `TeacherOutputs`."""
        return self.unified_attention((stage,), exponent, source)

    def unified_attention(self, stages: Sequence[int], exponent: float, source: Source = "encoder") -> Tensor:
        """As a live teacher's; see `TeacherOutputs`."""
        request = attention_request(stages, exponent, source)
        return self.networks[0].once(
            ("stored", request), lambda: decode_attention(self.coarse[request], exponent, self.unified_size(stages))
        )

    def size(self, stage: int) -> tuple[int, ...]:
        """Grid of a stage's map."""
        return self.stages[stage].size(self.networks[0].logits[0].shape[2:])

    def unified_size(self, stages: Sequence[int]) -> tuple[int, ...]:
        """The smallest grid of several stages, on every axis."""
        return tuple(map(min, zip(*(self.size(stage) for stage in stages), strict=True)))


class StoredTeacher:
    """Maps from a folder, in place of `Teacher`'s networks.

    Attributes:
        origins: of the networks that made the maps, with the hash of these, for the record.
        channels: of all maps.
        shape: stages and roles; without stages where only final maps are stored.
    """

    def __init__(self, maps: MapsFolder, origins: Sequence[Mapping[str, Any]], shape: TeacherShape) -> None:
        self.maps, self.origins, self.shape = maps, [dict(origin) for origin in origins], shape
        self.channels = sum(maps.description.all_channels)

    def __call__(self, codes: Tensor) -> TeacherOutputs:
        """What was stored of a batch, from its codes (B, channels, *spatial)."""
        description = self.maps.description
        final, *coarse = codes.split(description.all_channels, dim=1)
        logits = decode(final, description.regions)
        return StoredOutputs(
            networks=[Outputs(features=(), logits=(logits,))],
            stages=description.teacher_stages,
            coarse=dict(zip(description.coarse, coarse, strict=True)),
        )

    def with_maps(self, dataset: Any) -> WithMaps:
        """A data set of nnU-Net whose images carry the maps as last channels."""
        return WithMaps(dataset, self.maps.path, self.maps.description.strides)

    def size(self, patch_size: Sequence[int], _num_input_channels: int) -> Size:
        """Parameters and operations of one of the networks on a patch."""
        return self.maps.description.size(patch_size)

    def __repr__(self) -> str:  # nnU-Net writes every attribute of a trainer into debug.json
        return f"StoredTeacher({self.maps.path.name})"


def find_stored_teacher(
    student: StudentSide,
    training: Any,
    settings: Settings,
    needs: Mapping[str, frozenset[str]],
    trainer: str,
    requests: Callable[[TeacherShape], Sequence[MapRequest]],
) -> StoredTeacher:
    """Find the maps of a student's teacher and check that they are those of its training cases.

    Args:
        student: what the teacher is checked against.
        training: nnU-Net's data set of the training cases.
        settings: of the training.
        needs: name of each method -> what it asks of a teacher.
        trainer: its name, for messages.
        requests: what the methods ask of a teacher of that shape beside the final map.

    Raises:
        UserError: for a method that needs what cannot be stored, a teacher that does not fit, or missing maps.
    """
    check_needs(needs)
    origins = [checkpoint.origin for checkpoint in find_checkpoints(student, settings, same_spacing=False)]
    data = Path(training.source_folder)
    more = any(needed - {FINAL} for needed in needs.values())
    names = [student.plans.dataset_name, student.configuration, str(student.fold), "-p", student.plans_names[0]]
    command = shlex.join(["nnUNetv2_hlfd", "teach", *names, *(["--needs_of", trainer] if more else [])])
    folders = find_maps(data, settings.teacher_maps, [origin["sha256"] for origin in origins])
    shapes = [folder.description.shape(settings.late_max_stride) for folder in folders] if more else []
    shape = next((shape for shape in shapes if shape.stages), TeacherShape())
    asked = requests(shape) if shape.stages else ()
    maps = None if more and not shape.stages else choose_maps(folders, asked)
    if maps is None:
        lacking = f" with all that {trainer} needs" if folders else ""
        raise UserError(
            f"No stored maps{lacking} of the teacher in {origins[0]['folder']} beside {data}. Make them: {command}"
        )
    if shape.stages:
        check_patch(student.plans.get_configuration(student.configuration).patch_size, shape.stages[-1].stride, data)
    check_cases(maps, training, command)
    stored = {"maps": str(maps.path), "maps_sha256": maps.digest(training.identifiers)}
    return StoredTeacher(maps, [{**origin, **stored} for origin in origins], shape)
