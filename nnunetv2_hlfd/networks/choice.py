"""Which student a training gets."""

from collections.abc import Sequence
from typing import Any

from nnunetv2_hlfd.networks.size import Size, measure_size
from nnunetv2_hlfd.networks.students import AUTO, CHOICES, STUDENTS
from nnunetv2_hlfd.utilities.errors import UserError

_AUTO_FAMILY = "resnet18"
_AUTO_SHARE = 0.45


def student_architecture(
    plans_architecture: dict[str, Any], choice: str, patch_size: list[int], num_input_channels: int, num_heads: int
) -> dict[str, Any]:
    """Write the student's `architecture` block.

    Args:
        plans_architecture: the block of the plans' own network.
        choice: one of `CHOICES`. `auto` is the widest of the ResNet18 students whose parameters and
            multiply-accumulates are both at most 0.45 of the plans' own network.
        patch_size: for counting operations.
        num_input_channels: of the network.
        num_heads: segmentation outputs of the network.

    Returns:
        A new block; the plans' one is left as it is.

    Raises:
        UserError: for an unknown choice, plans with fewer than 3 stages, an architecture whose channels cannot be
            divided, or (`auto`) where even the smallest student is too large.
    """
    if choice not in CHOICES:
        raise UserError(f"Expected one of {', '.join(CHOICES)} for the setting 'student', got '{choice}'.")
    if choice != AUTO:
        return STUDENTS[choice](plans_architecture)
    limit = measure_size(plans_architecture, patch_size, num_input_channels, num_heads)
    return STUDENTS[choose_student(plans_architecture, limit, patch_size, num_input_channels, num_heads)](
        plans_architecture
    )


def choose_student(
    plans_architecture: dict[str, Any],
    limit: Size,
    patch_size: Sequence[int],
    num_input_channels: int,
    num_heads: int,
) -> str:
    """Name the student that `auto` stands for beside a network of a given size.

    Args:
        plans_architecture: the block that tells the topology.
        limit: the size of the network.
        patch_size: for counting operations.
        num_input_channels: of the network.
        num_heads: segmentation outputs of the network.

    Raises:
        UserError: for plans with fewer than 3 stages, or where even the smallest student is too large.
    """
    for name, write in STUDENTS.items():
        if name.startswith(_AUTO_FAMILY):
            size = measure_size(write(plans_architecture), patch_size, num_input_channels, num_heads)
            if size.parameters <= _AUTO_SHARE * limit.parameters and size.macs <= _AUTO_SHARE * limit.macs:
                return name
    raise UserError(
        f"No ResNet18 student is smaller than {_AUTO_SHARE} of the plans' own network ({limit}). "
        f"Choose one by the setting 'student': {', '.join(CHOICES)}."
    )
