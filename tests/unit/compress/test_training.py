"""The student's plans: how it is taught, and that it mirrors along no axis that its teacher does not."""

from types import SimpleNamespace

import pytest

from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.compress.teaching import Teaching
from nnunetv2_hlfd.compress.training import plan_command


def command(mirror_axes, kind="stored", **choices):
    model = SimpleNamespace(mirror_axes=mirror_axes, input_shape=(1, 8, 32, 32))
    places = SimpleNamespace(
        model=model, source=None, teaching=Teaching(kind=kind), dataset="Dataset001_X", base_plans="nnUNetPlans"
    )
    options = CompressOptions(model="m", images="i", output="o", student="resnet18_w4", **choices)
    words = plan_command(places, options)
    return dict(zip(words[2::2], words[3::2], strict=False))


@pytest.mark.parametrize(
    ("mirror_axes", "kind", "control", "mirroring"),
    [
        ((0, 1, 2), "stored", True, None),
        ((0, 1, 2), "labels", False, None),
        ((0, 1), "stored", False, None),
        ((0, 1), "live", False, None),
        ((0, 1), "stored", True, "none"),
        ((0, 1), "labels", False, "none"),
        (None, "stored", False, "none"),
        ((), "live", False, "none"),
    ],
)
def test_a_student_that_does_not_know_its_teachers_axes_mirrors_along_none(mirror_axes, kind, control, mirroring):
    assert command(mirror_axes, kind, control=control).get("-mirroring") == mirroring


def test_settings_of_the_user_and_of_the_schedule_are_in_the_plans():
    words = command((0, 1, 2), steps=500, seed=3, settings={"batch_size": 8, "weights": {"KD": 0.5}})
    assert words["-teacher_maps"] == "stored"
    assert (words["-num_epochs"], words["-seed"], words["-batch_size"]) == ("10", "3", "8")
    assert words["-weights"] == "KD=0.5"
    assert command((0, 1, 2), "live")["-teach_every"] == "4"
    assert "-teacher_maps" not in command((0, 1, 2), "labels")
