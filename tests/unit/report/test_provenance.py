"""How models came about, from the records that their trainings have left."""

import json
import re

import pytest
from report_folders import cases, write_model

from nnunetv2_hlfd.networks.size import Size
from nnunetv2_hlfd.report.arms import Arm
from nnunetv2_hlfd.report.costs import Curve
from nnunetv2_hlfd.report.models import read_models
from nnunetv2_hlfd.report.provenance import different_rows, provenance, unequal_training

SETTINGS = {"student": "resnet18", "num_epochs": 10, "num_iterations_per_epoch": 50, "recipe": "paper"}


@pytest.fixture
def arm(tmp_path):
    """Write a model with a record; returns its arm."""

    def make(name, record=None, **settings):
        settings = {**SETTINGS, **settings}
        folder = write_model(tmp_path, f"nnUNetTrainer{name}", cases(0.5, 0.6), settings=settings, seed=3, title=name)
        file = folder / "fold_0/distillation.json"
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "student": {"parameters": 7, "macs": 9}, **(record or {})}))
        return Arm(name=name, models=read_models([folder]))

    return make


def test_what_the_records_say_stands_in_the_table(arm):
    network = {
        "folder": "C:\\results\\nnUNetTrainer__nnUNetPlans__2d",
        "checkpoint": "fold_0/checkpoint_final.pth",
        "sha256": "0123456789abcdef",
        "may_have_seen_validation_cases": True,
    }
    record = {"method": {"title": "HLFD", "weights": {"ufd": 0.9}}, "teacher": {"networks": [network]}}
    hlfd = arm("HLFD", record, warmup_epochs=4)
    (hlfd.models[0].folder.path / "fold_0/debug.json").write_text('{"device": "cuda:0", "gpu_name": "H200"}')
    table = provenance(hlfd, Size(parameters=2_000_000, macs=1), [Curve(fold=0, seconds=1800, ended=1.7e9)], [0])
    assert table["Student"] == "resnet18"
    assert table["Parameters"] == "2 M"
    assert table["Method and weights"] == "HLFD (ufd=0.9)"
    assert table["Teacher"] == "nnUNetTrainer__nnUNetPlans__2d"
    assert (table["Teacher's checkpoint"], table["Teacher's SHA-256"]) == ("checkpoint_final.pth", "0123456789ab")
    assert table["Teacher may have seen the cases"] == "yes"
    assert (table["Training steps"], table["Seeds"]) == ("500", "3")
    assert table["Other settings"] == "warmup_epochs=4"
    assert (table["Trained until"], table["Hours of training, each fold"]) == ("2023-11-14", "0.50")
    assert table["Machine"] == "H200"


def test_what_a_stock_model_does_not_record_is_said(tmp_path):
    stock = Arm(name="teacher", models=read_models([write_model(tmp_path, "nnUNetTrainer", cases(0.5))]))
    table = provenance(stock, None, [], [0])
    assert (table["Student"], table["Parameters"]) == ("network of the plans", "not measured")
    assert (table["Recipe"], table["Training steps"]) == ("that of nnUNetTrainer", "not recorded")
    assert (table["Trained until"], table["Machine"]) == ("not recorded", "not recorded")


def test_a_damaged_debug_file_is_no_error(arm):
    hlfd = arm("HLFD")
    (hlfd.models[0].folder.path / "fold_0/debug.json").write_text("{")
    assert provenance(hlfd, None, [], [0])["Machine"] == "not recorded"


def test_only_what_a_comparison_should_hold_equal_is_unequal(arm):
    first = arm("HLFD")
    second = arm("Student", num_epochs=20, recipe="nnunet", beta=3)
    steps, recipe = unequal_training(first, second, {})
    assert re.fullmatch(r"steps \(\d+ against \d+\)", steps)
    assert recipe == "recipe"
    assert unequal_training(first, first, {}) == []
    columns = [provenance(each, None, [], [0]) for each in (first, second)]
    assert {"Training steps", "Recipe", "Other settings", "Trainer"} <= set(different_rows(columns))
    assert "Batch size" not in different_rows(columns)


def test_trainings_whose_hours_differ_by_more_than_a_tenth_are_unequal(arm):
    first, second = arm("HLFD"), arm("Student")

    def unequal(*seconds):
        curves = {each.name: [Curve(fold=0, seconds=time)] for each, time in zip((first, second), seconds, strict=True)}
        return unequal_training(first, second, curves)

    assert unequal(7200, 3600) == ["hours (2 against 1)"]
    assert unequal(3600, 3300) == []
    assert unequal(3600, None) == []
