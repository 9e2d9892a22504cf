"""The tap table: which stage of which network plays which role, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2_hlfd.taps import Stage
from nnunetv2_hlfd.teacher import TeacherNetwork


def tap_table(
    student_stages: Sequence[Stage],
    student_roles: Mapping[str, Any],
    teacher: TeacherNetwork,
    patch_size: Sequence[int],
) -> str:
    """Write one line a stage: network, stage, channels, total stride, size for the patch, role.

    Args:
        student_stages: of the student.
        student_roles: what the method says of its student stages (early, mids).
        teacher: the (first) teacher network.
        patch_size: of the student, which both networks see.
    """
    roles = {student_roles["early"]: "early", **dict.fromkeys(student_roles["mids"], "mid")}
    lines = [f"{'network':<8} {'stage':>5} {'channels':>8} {'stride':>10} {'size':>14}  role"]
    lines += _rows("student", student_stages, roles, patch_size)
    roles = {**dict.fromkeys(teacher.taps.mids, "mid"), teacher.taps.late: "late"}
    lines += _rows("teacher", teacher.stages, roles, patch_size)
    heads = ", ".join(map(str, teacher.taps.heads)) or "none, the final map instead"
    return "\n".join([*lines, f"teacher's intermediate outputs for p_mid (0 is full resolution): {heads}"])


def _rows(network: str, stages: Sequence[Stage], roles: Mapping[int, str], patch_size: Sequence[int]) -> list[str]:
    return [
        f"{network:<8} {index:>5} {stage.channels:>8} {_times(stage.stride):>10} {_times(stage.size(patch_size)):>14}  "
        f"{roles.get(index, '-')}"
        for index, stage in enumerate(stages)
    ]


def _times(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))
