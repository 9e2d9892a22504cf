"""Which label a part of the report looks at; what cannot be shown is refused first."""

import sys

import pytest
import torch
from report_folders import cases, write_model

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.report.models import read_model
from nnunetv2_hlfd.report.target import choose_target


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("labels", None, ("tumor", 2, 2, False)),
        ("labels", "kidney", ("kidney", 1, 1, False)),
        ("regions", None, ("tumor", 2, 1, True)),
        ("regions", "whole", ("whole", (1, 2), 0, True)),
    ],
)
def test_the_target_is_the_last_label_or_the_named_one_with_its_channel(tmp_path, kind, name, expected):
    model = read_model(write_model(tmp_path, "nnUNetTrainer", cases((0.5, 0.5)), kind=kind))
    target = choose_target(model, name)
    assert (target.name, target.value, target.channel, target.regions) == expected


def test_a_name_that_is_no_label_is_refused_before_anything_is_measured(tmp_path, capsys):
    folders = [write_model(tmp_path, f"nnUNetTrainer{each}", cases((0.5, 0.5)), kind="labels") for each in "ab"]
    arguments = ["report", "-m", *map(str, folders), "-o", str(tmp_path / "out"), "--pictures", "liver"]
    assert main(arguments) == 2
    assert "Expected one of the labels kidney, tumor, got 'liver'." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path, capsys):
    folders = [write_model(tmp_path, f"nnUNetTrainer{each}", cases(0.5)) for each in "ab"]
    arguments = ["report", "-m", *map(str, folders), "-o", str(tmp_path / "out"), "--pictures", "-device", "cuda"]
    assert main(arguments) == 2
    assert "PyTorch finds no GPU for -device cuda." in capsys.readouterr().err


def test_without_captum_nothing_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    folders = [write_model(tmp_path, f"nnUNetTrainer{each}", cases(0.5)) for each in "ab"]
    assert main(["report", "-m", *map(str, folders), "-o", str(tmp_path / "out"), "--pictures"]) == 2
    assert "This needs captum: pip install 'nnunetv2-hlfd[pictures]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
