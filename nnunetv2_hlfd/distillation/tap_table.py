"""The tap table: which stage of which network plays which role, in words."""

from collections.abc import Mapping, Sequence

from nnunetv2_hlfd.distillation.method import Roles
from nnunetv2_hlfd.distillation.taps import Stage


def tap_table(
    student_stages: Sequence[Stage], teacher_stages: Sequence[Stage], roles: Roles, patch_size: Sequence[int]
) -> str:
    """Write one line a stage: network, stage, channels, total stride, size for the patch, role.

    Args:
        student_stages: of the student.
        teacher_stages: of the teacher.
        roles: what the method says of them.
        patch_size: of the student, which both networks see.
    """
    lines = [f"{'network':<8} {'stage':>5} {'channels':>8} {'stride':>10} {'size':>14}  role"]
    lines += _rows("student", student_stages, roles.student, patch_size)
    lines += _rows("teacher", teacher_stages, roles.teacher, patch_size)
    return "\n".join([*lines, *roles.notes])


def _rows(network: str, stages: Sequence[Stage], roles: Mapping[int, str], patch_size: Sequence[int]) -> list[str]:
    return [
        f"{network:<8} {index:>5} {stage.channels:>8} {_times(stage.stride):>10} {_times(stage.size(patch_size)):>14}  "
        f"{roles.get(index, '-')}"
        for index, stage in enumerate(stages)
    ]


def _times(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))
