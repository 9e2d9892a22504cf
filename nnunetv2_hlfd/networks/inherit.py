"""A student's initial weights, taken from a teacher of the same topology with d times as many channels.

Of every axis of channels each (C / c)-th entry is taken, C channels of the teacher and c of the student. The choice
needs no knowledge of the topology: where two maps are concatenated (a decoder's upsampled map and its skip), the same
channels are found in both halves. What sums over C_in channels then sums over c_in, so that its weights are multiplied
by C_in / c_in. Before a normalization that factor changes nothing; transposed convolutions and segmentation layers have
none.

A teacher in which every channel occurs d times (W / d in place of W) gives a student that computes just the same.
"""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from nnunetv2_hlfd.networks.students import STUDENTS
from nnunetv2_hlfd.utilities.errors import UserError

_GEOMETRY = {
    "kernel_size": "kernel",
    "stride": "stride",
    "padding": "padding",
    "output_padding": "output padding",
    "dilation": "dilation",
    "groups": "groups",
    "num_groups": "groups",
}
_SETTING = "initial_weights=teacher"
_REMEDY = "Choose another student or teacher, or initial_weights=random."


@torch.no_grad()
def inherit_weights(student: nn.Module, teacher: nn.Module, choice: str) -> None:
    """Overwrite the student's weights and buffers in place with a selection of the teacher's.

    Nothing is drawn at random, and nothing is overwritten where the two do not fit. Optimizers, DDP and torch.compile
    keep the tensors that they know.

    Args:
        student: the network below DDP and torch.compile.
        teacher: likewise, on any device.
        choice: the setting `student`, for messages.

    Raises:
        UserError: where the networks differ in anything but their channels, where a number of channels does not divide
            the teacher's, or where they have other numbers of inputs or outputs.
    """
    pairs = _pair_modules(student, teacher, choice)
    _check_ends(student, teacher)
    selected = [selection for name, to, source in pairs for selection in _select_module(name, to, source)]
    for value, selection, factor in selected:
        value.copy_(selection * factor)


def _pair_modules(student: nn.Module, teacher: nn.Module, choice: str) -> list[tuple[str, nn.Module, nn.Module]]:
    """Name, student's and teacher's module; a module that occurs under several names comes once."""
    pairs = []
    for (name, to), (source_name, source) in zip_longest(
        student.named_modules(), teacher.named_modules(), fillvalue=("", None)
    ):
        if to is None or source is None or name != source_name or type(to) is not type(source):
            fitting = ", ".join(name for name in STUDENTS if name.startswith("unet_w") or name == "plans")
            raise UserError(
                f"{_SETTING} needs a student of the teacher's topology ({fitting}), got {choice}. First difference: "
                f"{_describe(source_name, source)} in the teacher, {_describe(name, to)} in the student. {_REMEDY}"
            )
        pairs.append((name, to, source))
    for name, to, source in pairs:
        _check_geometry(name, to, source)
    return pairs


def _check_geometry(name: str, student: nn.Module, teacher: nn.Module) -> None:
    for attribute, word in _GEOMETRY.items():
        wanted, found = _extents(getattr(student, attribute, None)), _extents(getattr(teacher, attribute, None))
        if wanted != found:
            raise UserError(f"{_SETTING}: {name} of the teacher has {word} {found}, the student's {wanted}. {_REMEDY}")


def _check_ends(student: nn.Module, teacher: nn.Module) -> None:
    """Inputs and outputs are no channels to select from."""
    for what, count in (("inputs", _inputs), ("outputs", _outputs)):
        wanted, found = count(student), count(teacher)
        if wanted != found:
            raise UserError(f"{_SETTING}: the teacher has {found} {what}, the student {wanted}. {_REMEDY}")


def _inputs(network: nn.Module) -> int | None:
    """Channels that the first convolution takes."""
    return next((module.in_channels for module in network.modules() if isinstance(module, _ConvNd)), None)


def _outputs(network: nn.Module) -> int | None:
    """Channels that nnU-Net's segmentation layers give."""
    names = (name for name, _ in network.named_modules() if ".seg_layers." in f".{name}")
    layer: Any = next((network.get_submodule(name) for name in names), None)
    return None if layer is None else int(layer.out_channels)


def _select_module(name: str, student: nn.Module, teacher: nn.Module) -> Iterator[tuple[Tensor, Tensor, int]]:
    """The student's own tensors, what is selected of the teacher's, and the factor of that."""
    values, sources = _own_tensors(student), _own_tensors(teacher)
    if values.keys() != sources.keys():
        raise UserError(
            f"{_SETTING}: {name} of the teacher has {', '.join(sources)}, the student's {', '.join(values)}. {_REMEDY}"
        )
    has_channels = isinstance(student, _ConvNd | nn.Linear | _NormBase | nn.GroupNorm | nn.LayerNorm)
    for key, value in values.items():
        source = sources[key]
        if value.shape != source.shape and not has_channels:
            raise UserError(
                f"{_SETTING} cannot select channels of {name}, a {type(student).__name__}: the teacher's {key} has "
                f"shape {tuple(source.shape)}, the student's {tuple(value.shape)}. {_REMEDY}"
            )
        for have, want in zip(source.shape, value.shape, strict=True):
            if have % want:
                raise UserError(f"{_SETTING}: {name}: {have} channels are no multiple of {want}. {_REMEDY}")
        steps = [have // want for have, want in zip(source.shape, value.shape, strict=True)]
        factor = steps[0 if getattr(student, "transposed", False) else 1] if value.ndim > 1 else 1
        yield value, source[tuple(slice(None, None, step) for step in steps)], factor


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def _describe(name: str, module: nn.Module | None) -> str:
    return "nothing more" if module is None else f"{name or 'the network'} ({type(module).__name__})"


def _extents(value: Any) -> str:
    """1x3x3 for the sizes of several axes."""
    return "x".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
