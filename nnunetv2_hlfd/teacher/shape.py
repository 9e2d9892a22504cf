"""What a loaded network can teach: its stages and roles where a method needs them, else its final map alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from nnunetv2_hlfd.distillation.method import OF_ANY_NETWORK, TeacherShape
from nnunetv2_hlfd.distillation.registry import METHODS, find_method
from nnunetv2_hlfd.teacher.compatibility import check_patch
from nnunetv2_hlfd.utilities.errors import UserError


def read_shape(
    network: nn.Module,
    needs: Mapping[str, frozenset[str]],
    folder: Path,
    *,
    patch_size: Sequence[int],
    num_input_channels: int,
    late_max_stride: int | None,
) -> TeacherShape:
    """Read the stages of a teacher; a network without them teaches methods that need only its final map.

    Args:
        network: of the teacher.
        needs: name of each method -> what it asks of a teacher.
        folder: of the teacher, for messages.
        patch_size: of the student.
        num_input_channels: of both.
        late_max_stride: the setting.

    Raises:
        UserError: naming the methods that this network cannot teach, or why the student's patch does not go through it.
    """
    demanding = {name: needed - OF_ANY_NETWORK for name, needed in needs.items() if needed - OF_ANY_NETWORK}
    try:
        shape = TeacherShape.of(network, late_max_stride)
    except UserError as error:
        if demanding:
            raise UserError(_cannot_teach(folder, demanding, error)) from error
        _check_final_map(network, folder, (1, num_input_channels, *patch_size))
        return TeacherShape()
    check_patch(patch_size, shape.stages[-1].stride, folder)
    return shape


def _cannot_teach(folder: Path, demanding: Mapping[str, frozenset[str]], error: Exception) -> str:
    methods = "; ".join(f"{name} needs its {', '.join(sorted(needed))}" for name, needed in demanding.items())
    modest = [name for name in METHODS if find_method(name).needs <= OF_ANY_NETWORK]
    return (
        f"The teacher in {folder} cannot teach this: {methods}. {error}\nAny network can teach {', '.join(modest)}, "
        f"which need only its final map."
    )


@torch.no_grad()
def _check_final_map(network: nn.Module, folder: Path, shape: tuple[int, ...]) -> None:
    """Run one patch of zeros: a network that does not tell its strides tells by an error what it cannot take."""
    try:
        final = final_map(network(torch.zeros(shape)))
    except Exception as error:
        raise UserError(
            f"The student's patch {list(shape[2:])} does not go through the teacher in {folder}: "
            f"{type(error).__name__}: {str(error)[:300]}. Set the configuration's patch_size in the plans to one that "
            f"it takes."
        ) from error
    if tuple(final.shape[2:]) != shape[2:]:
        raise UserError(
            f"Expected a final map of the patch's size {list(shape[2:])} from the teacher in {folder}, got "
            f"{list(final.shape[2:])}."
        )


def final_map(output: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """The full-resolution logits of a network's output, with deep supervision or without."""
    return output if isinstance(output, torch.Tensor) else output[0]
