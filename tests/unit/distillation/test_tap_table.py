"""The tap table, which a user reads before a long training."""

from nnunetv2_hlfd.distillation.method import Roles
from nnunetv2_hlfd.distillation.tap_table import tap_table
from nnunetv2_hlfd.distillation.taps import Stage

ROLES = Roles(student={1: "early", 2: "mid", 3: "mid"}, teacher={1: "mid", 2: "mid", 3: "late"}, notes=["a", "b"])


def pyramid(channels, strides):
    return tuple(Stage(channels=c, stride=s) for c, s in zip(channels, strides, strict=True))


def table():
    student = pyramid((2, 8, 8, 16), ((1, 1, 1), (1, 2, 2), (2, 4, 4), (4, 8, 8)))
    stages = pyramid((32, 64, 128, 256, 320), ((1, 1, 1), (1, 2, 2), (2, 4, 4), (4, 8, 8), (4, 16, 16)))
    return tap_table(student, stages, ROLES, (16, 64, 128)).splitlines()


def test_every_stage_has_a_line_with_its_channels_stride_size_and_role():
    assert [line.split() for line in table()[:-2]] == [
        ["network", "stage", "channels", "stride", "size", "role"],
        ["student", "0", "2", "1x1x1", "16x64x128", "-"],
        ["student", "1", "8", "1x2x2", "16x32x64", "early"],
        ["student", "2", "8", "2x4x4", "8x16x32", "mid"],
        ["student", "3", "16", "4x8x8", "4x8x16", "mid"],
        ["teacher", "0", "32", "1x1x1", "16x64x128", "-"],
        ["teacher", "1", "64", "1x2x2", "16x32x64", "mid"],
        ["teacher", "2", "128", "2x4x4", "8x16x32", "mid"],
        ["teacher", "3", "256", "4x8x8", "4x8x16", "late"],
        ["teacher", "4", "320", "4x16x16", "4x4x8", "-"],
    ]


def test_columns_are_aligned():
    *lines, _, _ = table()
    assert len({len(line.rsplit("  ", 1)[0]) for line in lines}) == 1


def test_the_methods_notes_come_last():
    assert table()[-2:] == ["a", "b"]
