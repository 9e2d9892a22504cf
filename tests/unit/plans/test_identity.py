"""Two runs with other settings never share a folder unnoticed."""

import json

import pytest

from nnunetv2_hlfd.plans.identity import (
    base_plans_name,
    check_folder_settings,
    check_resumed_settings,
    different_settings,
)
from nnunetv2_hlfd.settings.settings import Settings

OTHERS = {**Settings().to_dict(), "beta": 1.8, "student": "resnet18_w4"}
DIFFERENCES = "student: 'auto' here, 'resnet18_w4' there; beta: 0.9 here, 1.8 there"


def write_plans(folder, settings):
    (folder / "plans.json").write_text(json.dumps({"plans_name": "nnUNetPlans", "hlfd": {"settings": settings}}))
    return folder / "plans.json"


def write_record(folder, settings, fold=0):
    (folder / f"fold_{fold}").mkdir()
    record = folder / f"fold_{fold}" / "distillation.json"
    record.write_text(json.dumps({"given": settings, "settings": {**settings, "seed": 12}}))
    return record


@pytest.mark.parametrize(
    ("plans", "name"),
    [
        ({"plans_name": "nnUNetPlans"}, "nnUNetPlans"),
        ({"plans_name": "nnUNetPlans_b", "hlfd": {"settings": {}}}, "nnUNetPlans_b"),
        ({"plans_name": "nnUNetPlans_b", "hlfd": {"base_plans": "nnUNetPlans", "settings": {}}}, "nnUNetPlans"),
    ],
)
def test_the_base_plans_are_those_a_variant_was_made_from(plans, name):
    assert base_plans_name(plans) == name


def test_only_settings_on_both_sides_can_differ():
    assert different_settings({"beta": 1, "seed": 3, "new": 1}, {"beta": 2, "seed": 3, "old": 1}) == [
        "beta: 1 here, 2 there"
    ]


def test_an_empty_folder_and_one_with_the_same_settings_are_ours(tmp_path):
    check_folder_settings(tmp_path / "missing", Settings())
    check_folder_settings(tmp_path, Settings())
    write_plans(tmp_path, Settings().to_dict())
    write_record(tmp_path, Settings().to_dict())
    check_folder_settings(tmp_path, Settings())


def test_plans_of_stock_nnunet_and_older_records_with_fewer_settings_are_no_obstacle(tmp_path):
    (tmp_path / "plans.json").write_text(json.dumps({"plans_name": "nnUNetPlans"}))
    write_record(tmp_path, {"beta": 0.9})
    check_folder_settings(tmp_path, Settings())


@pytest.mark.parametrize("write", [write_plans, write_record, lambda *a: write_record(*a, fold="all")])
def test_a_folder_with_other_settings_is_refused_with_the_settings_and_both_ways_out(tmp_path, write):
    record = write(tmp_path, OTHERS)
    with pytest.raises(ValueError, match="belongs to a run with other settings") as caught:
        check_folder_settings(tmp_path, Settings())
    message = str(caught.value)
    assert message.startswith(f"{record} belongs to a run with other settings ({DIFFERENCES}).")
    assert "nnUNetv2_hlfd plan -name NAME" in message
    assert "nnUNetv2_hlfd train ... --overwrite" in message


@pytest.mark.parametrize("file", ["plans.json", "fold_0/distillation.json"])
@pytest.mark.parametrize("text", ["", '{"given"', "[]", "{}"])
def test_a_damaged_record_is_named(tmp_path, file, text):
    """A kill while writing must not end in a message about JSON columns; an empty object in plans.json is no run."""
    (tmp_path / "fold_0").mkdir()
    (tmp_path / file).write_text(text)
    if (file, text) == ("plans.json", "{}"):
        check_folder_settings(tmp_path, Settings())
        return
    with pytest.raises(ValueError, match="damaged") as caught:
        check_folder_settings(tmp_path, Settings())
    assert str(tmp_path / file) in str(caught.value)


def test_a_run_is_continued_with_its_own_settings():
    check_resumed_settings({}, OTHERS, "checkpoint_latest.pth")
    check_resumed_settings({"beta": 1.8}, OTHERS, "checkpoint_latest.pth")


def test_a_run_is_not_continued_with_another_setting_that_was_given():
    with pytest.raises(ValueError, match="Cannot continue") as caught:
        check_resumed_settings({"beta": 0.5, "student": "resnet18_w4"}, OTHERS, "fold_0/checkpoint_latest.pth")
    message = str(caught.value)
    assert message.startswith(
        "Cannot continue fold_0/checkpoint_latest.pth with other settings (beta: 0.5 here, 1.8 there). Remove them from"
    )
    assert "nnUNetv2_hlfd plan -name NAME" in message
