"""Loading the frozen teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_hlfd.distillation.method import TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.networks.size import Size, measure_network
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.teacher.checkpoint import TeacherCheckpoint, find_checkpoints, place
from nnunetv2_hlfd.teacher.search import StudentSide
from nnunetv2_hlfd.teacher.shape import final_map, read_shape
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage


@dataclass(frozen=True, kw_only=True)
class TeacherNetwork:
    """One fold's network, its stages and their roles as far as they are needed, and its origin for the record."""

    network: nn.Module
    shape: TeacherShape
    origin: Mapping[str, Any]


class Teacher:
    """Frozen networks (one, or one for each fold and folder), in eval mode and without gradients.

    Args:
        networks: with the same stages.
        decoder_maps: keep the maps of their decoders.
    """

    def __init__(self, networks: Sequence[TeacherNetwork], decoder_maps: bool = False) -> None:
        self.networks, self.decoder_maps = list(networks), decoder_maps
        self._sizes: dict[tuple[int, ...], Size] = {}

    def to(self, device: torch.device) -> "Teacher":
        """Move the networks."""
        for teacher in self.networks:
            teacher.network.to(device)
        return self

    def compile(self, **options: Any) -> None:
        """Compile the networks in place, as nnU-Net compiles the student; measure their size before.

        A decoder whose maps are taken by hooks of each step stays as it is: in compiled modules they would not fire.

        Args:
            options: of torch.compile.
        """
        for teacher in self.networks:
            if not teacher.shape.stages:
                teacher.network.compile(**options)
                continue
            teacher.network.get_submodule("encoder").compile(**options)
            if not self.decoder_maps:
                teacher.network.get_submodule("decoder").compile(**options)

    @property
    def shape(self) -> TeacherShape:
        """What a method's adapters are built from."""
        return replace(self.networks[0].shape, networks=len(self.networks))

    @property
    def origins(self) -> list[dict[str, Any]]:
        """Where the networks came from, for the record."""
        return [dict(network.origin) for network in self.networks]

    def size(self, patch_size: Sequence[int], num_input_channels: int) -> Size:
        """Parameters and operations of one of the networks on a patch."""
        key = (num_input_channels, *patch_size)
        if key not in self._sizes:  # a forward pass of a large network
            self._sizes[key] = measure_network(self.networks[0].network, patch_size, num_input_channels)
        return self._sizes[key]

    @torch.no_grad()
    def __call__(self, data: Tensor) -> TeacherOutputs:
        """Run every network on a batch (B, C, *spatial)."""
        return TeacherOutputs(networks=[_run(teacher, data, self.decoder_maps) for teacher in self.networks])

    def __repr__(self) -> str:  # nnU-Net writes every attribute into debug.json
        return f"Teacher({len(self.networks)} networks)"


def _run(teacher: TeacherNetwork, data: Tensor, decoder_maps: bool) -> Outputs:
    """Ask a network whose stages nobody needs, or can read, for its final map alone."""
    if teacher.shape.stages:
        return Outputs.of(teacher.network, data, decoder_maps=decoder_maps)
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
    networks = [
        _load_network(checkpoint, student, settings, needs) for checkpoint in find_checkpoints(student, settings)
    ]
    for other in networks[1:]:
        _check_averaging(networks[0], other)
    return Teacher(networks, decoder_maps=settings.teacher_features == "decoder")


def _check_averaging(first: TeacherNetwork, other: TeacherNetwork) -> None:
    """Networks that teach together are averaged map by map, so their maps must correspond.

    Raises:
        UserError: with what differs.
    """
    features, other_features = _features(first.shape), _features(other.shape)
    for name, value in features.items():
        if value != other_features[name]:
            raise UserError(
                f"The teachers' outputs cannot be averaged, their {name} differ: {value} in {place(first.origin)}, "
                f"{other_features[name]} in {place(other.origin)}. Let one of them teach, or train them with the same "
                f"plans."
            )


def _features(shape: TeacherShape) -> dict[str, str]:
    """What networks that teach together must have in common, in words."""
    stages = [f"{stage.channels} at {'x'.join(map(str, stage.stride))}" for stage in shape.stages]
    return {
        "stages (channels and total strides)": ", ".join(stages) or "none that can be read",
        "trained intermediate outputs": str(shape.taps.heads if shape.taps else ()),
    }


def _load_network(
    checkpoint: TeacherCheckpoint, student: StudentSide, settings: Settings, needs: Mapping[str, frozenset[str]]
) -> TeacherNetwork:
    model = checkpoint.model
    network = model.network(checkpoint.file, deep_supervision=True)
    with refuse_damage(model.path / "plans.json"):
        shape = read_shape(
            network,
            needs,
            model.path,
            patch_size=student.plans.get_configuration(student.configuration).patch_size,
            num_input_channels=model.input_shape[0],
            late_max_stride=settings.late_max_stride,
        )
    return TeacherNetwork(network=network, shape=shape, origin=checkpoint.origin)
