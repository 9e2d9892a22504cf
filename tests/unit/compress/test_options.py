"""The choices of a compression: its schedule, and what is refused before anything is read."""

from pathlib import Path

import pytest

from nnunetv2_hlfd.compress.options import CompressOptions, parse_settings

FOLDERS = {"model": Path("m"), "images": Path("i"), "output": Path("o")}


@pytest.mark.parametrize(
    ("steps", "epochs", "per_epoch"),
    [(30_000, 120, 250), (2_000, 10, 200), (10, 10, 1), (1, 1, 1), (250_000, 1000, 250)],
)
def test_steps_become_epochs_as_nnunet_has_them_and_not_too_few(steps, epochs, per_epoch):
    schedule = CompressOptions(**FOLDERS, steps=steps).schedule
    assert schedule["num_epochs"] == epochs
    assert schedule["num_iterations_per_epoch"] == per_epoch
    assert schedule["num_val_iterations_per_epoch"] >= 1


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"steps": 0}, "at least 1 step"),
        ({"student": "resnet18_w3"}, "Did you mean 'resnet18"),
        ({"held_out": 0.9}, "at most 0.5"),
        ({"held_out": 0.0}, "above 0"),
        ({"settings": {"num_epochs": 3}}, "num_epochs is chosen by compress"),
        ({"settings": {"recipe": "other"}}, "one of paper, nnunet"),
        ({"seed": -1}, "at least 0"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        CompressOptions(**FOLDERS, **choice)


def test_settings_are_those_of_the_reference():
    assert parse_settings(["batch_size=8", "teacher_share=0.7", "weights=KD=0.5,ifd=0"]) == {
        "batch_size": 8,
        "teacher_share": 0.7,
        "weights": {"KD": 0.5, "ifd": 0},
    }


@pytest.mark.parametrize(("word", "message"), [("batch_sise=8", "Did you mean 'batch_size'"), ("recipe", "NAME=VALUE")])
def test_other_words_are_refused(word, message):
    with pytest.raises(ValueError, match=message):
        parse_settings([word])
