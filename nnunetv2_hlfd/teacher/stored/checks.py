"""May this student learn from stored maps? Each refusal says what to do."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from nnunetv2_hlfd.distillation.method import ATTENTION, FINAL, HEADS
from nnunetv2_hlfd.teacher.stored.folder import MapsFolder, State
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.text import some_names

STORABLE = frozenset({FINAL, HEADS, ATTENTION})
LIMIT = 2**30  # bytes of maps in a process of the augmentation


def check_needs(needs: Mapping[str, frozenset[str]]) -> None:
    """Stored are the final map, attention maps and means of intermediate outputs.

    Args:
        needs: name of each method -> what it asks of a teacher.

    Raises:
        UserError: for a method that needs more.
    """
    for name, needed in needs.items():
        if more := needed - STORABLE:
            raise UserError(
                f"{name} needs the teacher's {', '.join(sorted(more))}, which cannot be stored. Set teacher_maps to "
                f"live."
            )


def too_large(channels: int, initial_patch: Sequence[int]) -> str | None:
    """Say what maps would need in every process of the augmentation, where they are cut and warped as float32.

    Args:
        channels: of the maps.
        initial_patch: what nnU-Net cuts before it rotates.

    Returns:
        None where they need at most 1 GiB.
    """
    extents = [int(extent) for extent in initial_patch]
    needed = channels * prod(extents) * 8
    if needed <= LIMIT:
        return None
    return (
        f"{channels} map channels of {'x'.join(map(str, extents))} need {needed / 2**30:.1f} GiB in every augmentation "
        f"process (limit 1)"
    )


def check_memory(channels: int, initial_patch: Sequence[int]) -> None:
    """Refuse maps that would fill the memory; the arguments are those of `too_large`.

    Raises:
        UserError: where they need more than 1 GiB.
    """
    if reason := too_large(channels, initial_patch):
        raise UserError(f"{reason}. Set teacher_maps to live and teach_every to 4.")


def check_cases(maps: MapsFolder, training: Any, command: str) -> None:
    """Every training case needs maps, made from the image that the student will see.

    Args:
        maps: of the student's teacher.
        training: nnU-Net's data set of the training cases.
        command: that makes maps.

    Raises:
        UserError: naming the cases and the command.
    """
    cases = training.identifiers
    states: dict[State, list[str]] = {}
    for case in cases:
        states.setdefault(maps.state(case, training), []).append(case)
    if missing := states.get("missing"):
        raise UserError(
            f"No stored maps of this teacher for {len(missing)} of {len(cases)} training cases ({some_names(missing)}) "
            f"in {maps.path}. Make them: {command}"
        )
    if others := states.get("of other data"):
        there, here = (
            "x".join(map(str, shape))
            for shape in (maps.cases[others[0]]["shape"], training.load_case(others[0])[0].shape[1:])
        )
        raise UserError(
            f"The maps of {some_names(others)} in {maps.path} were made from other preprocessed data ({others[0]}: "
            f"shape {there} there, {here} here). Make them again: {command}"
        )
    if damaged := states.get("damaged"):
        raise UserError(f"The maps of {some_names(damaged)} in {maps.path} are damaged. Make them again: {command}")
