"""Settings: their defaults, their rules, and what a mistake is answered with."""

import os
from dataclasses import FrozenInstanceError
from math import inf, nan
from pathlib import Path

import pytest

from nnunetv2_hlfd.settings.settings import (
    RULES,
    Settings,
    given_settings,
    teacher_folders_from_environment,
    trust_checkpoints,
)

DEFAULTS = {
    "teacher_fold": None,
    "teacher_checkpoint": "checkpoint_final.pth",
    "teacher_maps": "live",
    "previous_stage": None,
    "student": "auto",
    "beta": 0.9,
    "lambda": 0.1,
    "weights": None,
    "source_ratio": True,
    "teacher_share": 0.5,
    "soft_dice_share": 0.5,
    "balance": "none",
    "balance_ratio": 0.3,
    "teach_every": 1,
    "temperature": 4.0,
    "attention_exponent": 1.0,
    "late_max_stride": 16,
    "teacher_features": "encoder",
    "pixel_maps": "encoder",
    "pixel_loss": "kl",
    "voxel_weights": "uniform",
    "pixel_grid": "tap",
    "distill_ignored": True,
    "warmup_epochs": 0,
    "distill_until": None,
    "distill_decay": "linear",
    "initial_weights": "random",
    "mirroring": "teacher",
    "recipe": "paper",
    "augmentation": "nnunet",
    "initial_lr": None,
    "num_epochs": None,
    "num_iterations_per_epoch": 250,
    "num_val_iterations_per_epoch": 50,
    "batch_size": None,
    "save_every": 10,
    "seed": None,
}
STUDENTS = "auto, resnet18, resnet18_w2, resnet18_w4, resnet18_w8, unet_w2, unet_w4, unet_w8, plans"
POSITIVE_COUNTS = ("num_iterations_per_epoch", "num_val_iterations_per_epoch", "save_every")


def refusal(name, value):
    with pytest.raises(ValueError, match=rf"setting '{name}'") as caught:
        Settings.from_dict({name: value})
    return str(caught.value)


def test_defaults_are_those_of_the_design():
    assert Settings().to_dict() == Settings.from_dict({}).to_dict() == DEFAULTS


def test_settings_survive_the_way_through_a_dictionary():
    values = {**DEFAULTS, "lambda": 0.5, "teacher_fold": "all", "student": "unet_w4", "num_epochs": 7}
    assert Settings.from_dict(values).to_dict() == values


def test_settings_are_frozen():
    with pytest.raises(FrozenInstanceError):
        Settings().beta = 1.0


def test_every_setting_is_described_in_the_same_order():
    assert list(RULES) == list(DEFAULTS)
    assert all(rule.text for rule in RULES.values())


@pytest.mark.parametrize(
    ("given", "learning_rate", "epochs"),
    [
        ({}, 1e-3, 120),
        ({"recipe": "paper"}, 1e-3, 120),
        ({"recipe": "nnunet"}, 1e-2, 1000),
        ({"recipe": "nnunet", "initial_lr": 0.5}, 0.5, 1000),
        ({"recipe": "paper", "num_epochs": 3}, 1e-3, 3),
    ],
)
def test_learning_rate_and_epochs_follow_the_recipe_unless_given(given, learning_rate, epochs):
    settings = Settings.from_dict(given)
    assert (settings.learning_rate, settings.epochs) == (learning_rate, epochs)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("teacher_fold", 0),
        ("teacher_fold", 4),
        ("teacher_fold", "all"),
        ("teacher_fold", None),
        ("beta", 0.0),
        ("lambda", 2.5),
        ("temperature", 1e-3),
        ("attention_exponent", 1.0),
        ("late_max_stride", 2),
        ("late_max_stride", None),
        ("distill_ignored", False),
        ("warmup_epochs", 0),
        ("teacher_share", 0.0),
        ("teacher_share", 1.0),
        ("distill_until", None),
        ("distill_until", 1.0),
        ("balance", "project"),
        ("teach_every", 4),
        ("initial_lr", 1e-9),
        ("num_epochs", 1),
        ("batch_size", 1),
        ("save_every", 1),
        ("seed", 0),
        ("teacher_checkpoint", "checkpoint_best.pth"),
        ("previous_stage", "nnUNetTrainer__nnUNetPlans_short.1__3d_lowres"),
        ("weights", {}),
        ("weights", {"KD": 0.5, "HLFD": 0.0}),
        *(("student", choice) for choice in STUDENTS.split(", ")),
        *(
            (name, choice)
            for name, choices in {
                "recipe": ("paper", "nnunet"),
                "augmentation": ("paper", "nnunet"),
                "pixel_maps": ("encoder", "decoder", "outputs"),
                "pixel_loss": ("kl", "soft"),
                "voxel_weights": ("uniform", "class"),
                "pixel_grid": ("tap", "image"),
            }.items()
            for choice in choices
        ),
    ],
)
def test_valid_values_are_taken_as_they_are(name, value):
    assert Settings.from_dict({name: value}).to_dict() == {**DEFAULTS, name: value}


def test_whole_numbers_stand_for_floats():
    beta = Settings.from_dict({"beta": 2}).beta
    assert beta == 2.0
    assert isinstance(beta, float)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("beta", value, "a number of at least 0") for value in (-0.1, nan, inf, -inf, "0.9", True, None, [0.9])),
        ("lambda", -1e-9, "a number of at least 0"),
        *(("temperature", value, "a number above 0") for value in (0.0, -4.0, nan, inf, "4", False)),
        *(("attention_exponent", value, "a number of at least 1") for value in (0.99, nan, None)),
        *(("late_max_stride", value, "an integer of at least 2 or null") for value in (1, -16, 16.0, "16", True)),
        *(
            ("previous_stage", value, "TRAINER__PLANS__CONFIGURATION or null")
            for value in (
                "nnUNetTrainer",
                "nnUNetTrainer__nnUNetPlans",
                "a__b__c__d",
                "__nnUNetPlans__3d_lowres",
                "a__b__",
                "/results/a__b__c",
                "../a__b__c",
                3,
                "",
            )
        ),
        *(("teacher_share", value, "a number of at least 0, at most 1") for value in (-0.1, 1.1, nan, "half", None)),
        *(("distill_until", value, "a number above 0, at most 1 or null") for value in (0.0, 1.5, nan, True)),
        *(("distill_ignored", value, "true or false") for value in (0, 1, "true", None)),
        *(("warmup_epochs", value, "an integer of at least 0") for value in (-1, 1.5, "1", None, True)),
        *(("initial_lr", value, "a number above 0 or null") for value in (0.0, -1e-3, nan, inf, "fast", True)),
        *(("num_epochs", value, "an integer of at least 1 or null") for value in (0, -1, 1.0, "120", True)),
        *(("batch_size", value, "an integer of at least 1 or null") for value in (0, 2.0, False)),
        *((name, value, "an integer of at least 1") for name in POSITIVE_COUNTS for value in (0, 2.5, None, True)),
        *(("seed", value, "an integer of at least 0 or null") for value in (-1, 0.5, "1", True)),
        *(("teacher_checkpoint", value, "text") for value in (None, 3, True)),
        *(("student", value, f"one of {STUDENTS}") for value in (None, 18, ["auto"], True)),
        *(
            ("weights", value, "NAME=FACTOR,... with numbers of at least 0 or null")
            for value in ({"KD": -1}, {"KD": nan}, {"KD": "1"}, {"KD": True}, {"": 1.0}, {1: 1.0}, "KD=1", 1.0, ["KD"])
        ),
        *(("recipe", value, "one of paper, nnunet") for value in (None, 1)),
        *(("augmentation", value, "one of nnunet, paper") for value in (None, True)),
        *(("pixel_maps", value, "one of encoder, decoder, outputs") for value in (None, 1)),
        *(("pixel_grid", value, "one of tap, image") for value in (None, 1)),
    ],
)
def test_a_bad_value_is_answered_with_what_was_expected_and_got(name, value, expected):
    assert refusal(name, value) == f"Expected {expected} for setting '{name}', got {value!r}."


@pytest.mark.parametrize("name", ["seed", "num_epochs", "beta"])
def test_a_number_that_plans_or_numpy_cannot_hold_is_refused(name):
    assert Settings.from_dict({name: 2**32 - 1})
    assert "Expected a number of at most 4294967295" in refusal(name, 10**20)


@pytest.mark.parametrize("value", [-1, 1.0, "0", "best", "All", True])
def test_a_teacher_fold_is_a_number_or_all_and_the_message_says_so(value):
    message = refusal("teacher_fold", value)
    assert message.endswith(f"for setting 'teacher_fold', got {value!r}.")
    assert "at least 0" in message
    assert "all" in message.split("for setting")[0]


@pytest.mark.parametrize(
    ("name", "value", "nearest"),
    [
        ("student", "resnet_w8", "resnet18_w8"),
        ("student", "resnet50", "resnet18"),
        ("student", "Unet_w4", "unet_w4"),
        ("recipe", "papers", "paper"),
        ("augmentation", "nnUNet", "nnunet"),
        ("pixel_maps", "decode", "decoder"),
        ("pixel_grid", "taps", "tap"),
    ],
)
def test_a_near_miss_of_a_choice_is_answered_with_the_nearest_valid_one(name, value, nearest):
    choices = ", ".join(RULES[name].choices)
    message = f"Expected one of {choices} for setting '{name}', got '{value}'. Did you mean '{nearest}'?"
    assert refusal(name, value) == message


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("betta", "beta"),
        ("Lambda", "lambda"),
        ("lambda_", "lambda"),
        ("teacher_folds", "teacher_fold"),
        ("epochs", "num_epochs"),
        ("batchsize", "batch_size"),
        ("late_stride", "late_max_stride"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_valid_one(name, nearest):
    with pytest.raises(ValueError, match=rf"^Unknown setting '{name}'\. Did you mean '{nearest}'\?$"):
        Settings.from_dict({name: 1})


def test_an_unknown_name_far_from_all_is_answered_with_the_list_of_all():
    with pytest.raises(ValueError, match=r"^Unknown setting 'xyzzy'\. Valid are: (.+)\.$") as caught:
        Settings.from_dict({"xyzzy": 1})
    assert all(name in str(caught.value) for name in DEFAULTS)


def test_lambda_has_an_underscore_in_python_only():
    assert Settings.from_dict({"lambda": 0.3}).lambda_ == 0.3
    assert "lambda_" not in Settings().to_dict()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("beta", "1.8", 1.8),
        ("beta", "2", 2.0),
        ("initial_lr", "1e-4", 1e-4),
        ("initial_lr", "null", None),
        ("num_epochs", "120", 120),
        ("num_epochs", "None", None),
        ("late_max_stride", "NULL", None),
        ("teacher_fold", "3", 3),
        ("teacher_fold", "all", "all"),
        ("teacher_fold", "none", None),
        ("distill_ignored", "true", True),
        ("distill_ignored", "False", False),
        ("distill_ignored", "1", True),
        ("distill_ignored", "0", False),
        ("student", "unet_w2", "unet_w2"),
        ("teacher_checkpoint", "none", "none"),
        ("seed", "12", 12),
        ("weights", "HLFD=1,KD=0.5", {"HLFD": 1.0, "KD": 0.5}),
        ("weights", "KD=1e-1", {"KD": 0.1}),
        ("weights", "null", None),
    ],
)
def test_text_of_the_command_line_becomes_a_value_of_the_settings_type(name, text, value):
    parsed = RULES[name].parse(name, text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("beta", "high", "a number of at least 0"),
        ("beta", "null", "a number of at least 0"),
        ("num_epochs", "1.5", "an integer of at least 1 or null"),
        ("save_every", "", "an integer of at least 1"),
        ("distill_ignored", "yes", "true or false"),
        ("temperature", "4,0", "a number above 0"),
        *(
            ("weights", text, "NAME=FACTOR,... with numbers of at least 0 or null")
            for text in ("KD", "KD=", "KD=high", "KD=1=2", "KD:1", "")
        ),
    ],
)
def test_text_that_is_no_value_of_the_setting_is_refused(name, text, expected):
    with pytest.raises(ValueError, match=r"^Expected") as caught:
        RULES[name].parse(name, text)
    assert str(caught.value) == f"Expected {expected} for setting '{name}', got '{text}'."


@pytest.mark.parametrize(
    "plans", [{}, {"hlfd": {}}, {"hlfd": {"base_plans": "nnUNetPlans"}}, {"hlfd": {"settings": {}}}]
)
def test_plans_without_settings_give_none(plans):
    assert given_settings(plans) == {}


def test_given_settings_are_a_copy():
    plans = {"hlfd": {"base_plans": "nnUNetPlans", "settings": {"beta": 1.8}}}
    given = given_settings(plans)
    given["beta"] = 0
    assert plans["hlfd"]["settings"] == {"beta": 1.8}


@pytest.mark.parametrize(
    "block", [None, 3, "beta", ["beta"], {"settings": None}, {"settings": ["beta"]}, {"settings": 1}]
)
def test_a_malformed_block_in_the_plans_is_answered_with_its_form_and_the_command_that_writes_it(block):
    with pytest.raises(ValueError, match="Expected the plans' 'hlfd' block to be") as caught:
        given_settings({"hlfd": block})
    message = str(caught.value)
    assert '{"base_plans": NAME, "settings": {...}}' in message
    assert f"got {block!r}" in message
    assert message.endswith("Write one with: nnUNetv2_hlfd plan")


@pytest.mark.parametrize(
    ("value", "folders"),
    [
        (None, []),
        ("", []),
        ("/models/teacher", [Path("/models/teacher")]),
        (os.pathsep.join(["/models/one", "", "/models/two"]), [Path("/models/one"), Path("/models/two")]),
    ],
)
def test_the_environment_may_name_the_teachers_folders(monkeypatch, value, folders):
    monkeypatch.delenv("nnUNet_hlfd_teacher", raising=False)
    if value is not None:
        monkeypatch.setenv("nnUNet_hlfd_teacher", value)
    assert teacher_folders_from_environment() == folders


@pytest.mark.parametrize(
    ("value", "trusted"), [(None, False), ("", False), ("0", False), ("false", False), ("1", True), ("True", True)]
)
def test_checkpoints_are_trusted_only_on_request(monkeypatch, value, trusted):
    monkeypatch.delenv("nnUNet_hlfd_trust_checkpoint", raising=False)
    if value is not None:
        monkeypatch.setenv("nnUNet_hlfd_trust_checkpoint", value)
    assert trust_checkpoints() is trusted
