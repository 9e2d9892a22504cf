"""Which encoder stage plays which role in the distillation, and how its map is captured."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_hlfd.utilities.errors import UserError

_MAX_STUDENT_MIDS = 3


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One encoder stage: its channels and its total stride with respect to the image, per axis."""

    channels: int
    stride: tuple[int, ...]

    def size(self, patch_size: Sequence[int]) -> tuple[int, ...]:
        """Spatial size of the stage's map for a patch that its stride divides."""
        return tuple(extent // stride for extent, stride in zip(patch_size, self.stride, strict=True))


@dataclass(frozen=True, kw_only=True)
class StudentTaps:
    """Student stages: `early` is the stem (first strided stage), `mids` the next stages, N = len(mids) of Eq. 2."""

    early: int
    mids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TeacherTaps:
    """Roles of the teacher's stages.

    `mids` teach the student's early stage, `late` its mids; `heads` are the trained intermediate
    deep-supervision outputs (0 is full resolution), empty where only the final map can teach.
    """

    mids: tuple[int, ...]
    late: int
    heads: tuple[int, ...]


def read_stages(network: nn.Module) -> tuple[Stage, ...]:
    """Stages of a network whose `encoder` describes itself as those of dynamic_network_architectures do.

    Raises:
        UserError: for a network without such an encoder and a decoder with deep supervision.
    """
    encoder: Any = getattr(network, "encoder", None)
    decoder: Any = getattr(network, "decoder", None)
    described = all(hasattr(encoder, name) for name in ("output_channels", "strides"))
    if not described or not all(hasattr(decoder, name) for name in ("deep_supervision", "seg_layers")):
        raise UserError(
            f"Expected a U-Net with an encoder that tells output_channels and strides and a decoder with "
            f"deep_supervision and seg_layers, as those of dynamic_network_architectures, got {type(network).__name__}."
        )
    stages, total = [], None
    for channels, stride in zip(encoder.output_channels, encoder.strides, strict=True):
        total = tuple(stride) if total is None else tuple(a * b for a, b in zip(total, stride, strict=True))
        stages.append(Stage(channels=int(channels), stride=tuple(int(extent) for extent in total)))
    return tuple(stages)


def student_taps(stages: Sequence[Stage]) -> StudentTaps:
    """Choose the student's stages.

    Raises:
        UserError: where no stage follows the first strided one.
    """
    strided = [index for index, stage in enumerate(stages) if max(stage.stride) > 1]
    if len(strided) < 2:
        raise UserError(
            f"No usable stages in the student: expected at least two strided encoder stages, got total strides "
            f"{[stage.stride for stage in stages]}. Distillation needs plans with at least 3 stages."
        )
    return StudentTaps(early=strided[0], mids=tuple(strided[1 : 1 + _MAX_STUDENT_MIDS]))


def teacher_taps(stages: Sequence[Stage], heads: Sequence[int], late_max_stride: int | None) -> TeacherTaps:
    """Choose the teacher's stages.

    Args:
        stages: from `read_stages`.
        heads: from `trained_heads`.
        late_max_stride: see `late_stage`.

    Raises:
        UserError: where no stage lies between the first and the late one.
    """
    late = late_stage(stages, late_max_stride)
    if late < 2:
        strides = [stage.stride for stage in stages]
        if len(stages) < 3:
            raise UserError(
                f"No usable stages in the teacher: expected at least 3 stages, got total strides {strides}. Choose "
                f"another teacher."
            )
        raise UserError(
            f"No usable stages in the teacher: expected at least one stage between the first and the late one (total "
            f"stride at most {late_max_stride}), got total strides {strides}. "
            f"Raise the setting late_max_stride or set it to null, which takes the bottleneck."
        )
    return TeacherTaps(mids=tuple(range(1, late)), late=late, heads=tuple(heads))


def late_stage(stages: Sequence[Stage], late_max_stride: int | None) -> int:
    """The deepest stage whose total stride is at most `late_max_stride` on every axis; None takes the bottleneck.

    nnU-Net's bottleneck is only 4 to 7 pixels wide and carries little about where a lesion is.
    """
    strides = [max(stage.stride) for stage in stages]
    fitting = [index for index, stride in enumerate(strides) if late_max_stride is None or stride <= late_max_stride]
    return fitting[-1] if fitting else 0


def nearest_stage(stages: Sequence[Stage], stride: Sequence[int]) -> int:
    """The stage whose total stride is nearest to `stride` (octaves, summed over the axes), the shallower of two."""

    def octaves(stage: Stage) -> float:
        return sum(abs(math.log2(have / want)) for have, want in zip(stage.stride, stride, strict=True))

    return min(range(len(stages)), key=lambda index: octaves(stages[index]))


def trained_heads(network: nn.Module) -> tuple[int, ...]:
    """Intermediate deep-supervision outputs that were trained; 0 is full resolution, ascending is deeper.

    nnU-Net gives the deepest output loss weight 0, so it stays as initialized, and a teacher that was trained without
    deep supervision has no trained output but the first. nnU-Net initializes biases to exactly 0, which training
    never leaves them at: such a head is untrained.
    """
    seg_layers = network.get_submodule("decoder.seg_layers").children()
    biases = [layer.get_parameter("bias") for layer in reversed(list(seg_layers))]
    return tuple(index for index in range(1, len(biases) - 1) if torch.any(biases[index] != 0))


@contextmanager
def captured_decoder_maps(network: nn.Module) -> Iterator[dict[int, Tensor]]:
    """Fill a dictionary, index of an output (0 is full resolution) -> the decoder's map that it is made from.

    That map is what the output's segmentation layer takes, whatever the decoder is made of. All layers run where the
    decoder has deep supervision switched on.
    """
    layers = list(reversed(list(network.get_submodule("decoder.seg_layers").children())))
    maps: dict[int, Tensor] = {}

    def keep(index: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _layer, inputs: maps.__setitem__(index, inputs[0])

    handles = [layer.register_forward_pre_hook(keep(index)) for index, layer in enumerate(layers)]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


class EncoderCapture:
    """Keeps what an encoder returns (all its skips) while switched on.

    One forward hook on the inner, uncompiled encoder. The hook has to be there before the first compiled forward;
    hooks added later never fire. `take` hands the maps over and drops its own references.
    """

    def __init__(self, network: nn.Module) -> None:
        self.enabled = False
        self._skips: list[Tensor] | None = None
        self._expected = len(read_stages(network))
        network.get_submodule("encoder").register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: tuple[Tensor, ...], skips: list[Tensor]) -> None:
        if self.enabled:
            self._skips = list(skips)

    def take(self) -> list[Tensor]:
        """Return the captured maps, highest resolution first.

        Raises:
            RuntimeError: where the forward pass did not go through the hook.
        """
        skips, self._skips = self._skips, None
        if skips is None or len(skips) != self._expected:
            raise RuntimeError(
                f"Expected {self._expected} encoder maps of the student, captured {0 if skips is None else len(skips)}."
            )
        return skips
