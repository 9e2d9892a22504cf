"""`nnUNetv2_hlfd benchmark`: every rung predicts what it should, and the ladder's files tell it."""

import csv
import json

import numpy as np
import pytest
import SimpleITK
import torch

from nnunetv2_hlfd.benchmark.ladder import write_ladder
from nnunetv2_hlfd.benchmark.rung import STAGES, Rung, Timing, run_rung
from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.deploy.runtime.images import find_cases

DATASET = "Dataset901_Phantom"


@pytest.fixture(scope="module")
def as_openvino(teacher_2d, tmp_path_factory):
    """The 2d teacher's export."""
    output = tmp_path_factory.mktemp("openvino")
    assert main(["export", "-m", str(teacher_2d.parent), "-to", "openvino", "-o", str(output)]) == 0
    [folder] = output.glob("Dataset*/nnUNetTrainer*")
    return folder


@pytest.fixture
def images(nnunet):
    return nnunet / "raw" / DATASET / "imagesTr"


def test_every_way_to_run_a_rung_predicts_the_same(teacher_2d, as_openvino, images, tmp_path):
    cases = dict(list(find_cases(images, ".nii.gz").items())[:2])
    rungs = [
        Rung(name="stock", model=teacher_2d.parent, how="nnunet"),
        Rung(name="ours", model=teacher_2d.parent, how="ours"),
        Rung(name="export", model=as_openvino, how="ours", backend="openvino"),
        Rung(name="program", model=as_openvino, how="program"),
    ]
    labels = {}
    for rung in rungs:
        timing = run_rung(rung, cases, tmp_path / rung.name, ["0"], "cpu", 1)
        assert list(timing.cases) == list(cases)
        assert all(tuple(seconds) == STAGES and min(seconds.values()) > 0 for seconds in timing.cases.values())
        assert timing.start_up > 0
        assert timing.peak_memory is None or timing.peak_memory > 2**20
        files = [tmp_path / rung.name / f"{case}.nii.gz" for case in cases]
        labels[rung.name] = np.stack([SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))) for file in files])
    for name in ("ours", "export", "program"):
        assert (labels[name] == labels["stock"]).mean() > 0.998


def test_the_ladder_s_files_hold_every_case_and_how_many_times_faster_a_rung_is(tmp_path):
    timings = {
        "slow": Timing(
            start_up=2, cases={"a": dict.fromkeys(STAGES, 1.0), "b": dict.fromkeys(STAGES, 3.0)}, peak_memory=2**30
        ),
        "fast": Timing(start_up=1, cases={each: dict.fromkeys(STAGES, 0.5) for each in "ab"}, peak_memory=None),
    }
    line = {
        "network": "teacher",
        "backend": "torch",
        "gflops": 2.0,
        "mbytes": 3.0,
        "bound_ms": 4.0,
        "measured_ms": 6.0,
        "peak_gflops_per_s": 100.0,
        "bandwidth_gb_per_s": 10.0,
    }
    about = {"models": {}, "patch": [1, 8, 8], "device": "cpu", "threads": 2, "networks": [line]}
    text = write_ladder(tmp_path, timings, {"slow": 0.7, "fast": 0.69}, about).read_text()
    rows = {
        row[0]: row[1:]
        for row in (
            [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
        )
    }
    assert rows["slow"] == ["2.0", *["2.000"] * 5, "10.000", "1.0", "6.0", "1.00 GiB", "0.7000"]
    assert rows["fast"] == ["1.0", *["0.500"] * 5, "2.500", "4.0", "24.0", "-", "0.6900"]
    assert rows["teacher"] == ["torch", "2.00", "3", "4.0", "6.0", "1.50"]
    with (tmp_path / "ladder.csv").open() as file:
        assert [(row["rung"], row["case"], float(row["network"])) for row in csv.DictReader(file)] == [
            ("slow", "a", 1),
            ("slow", "b", 3),
            ("fast", "a", 0.5),
            ("fast", "b", 0.5),
        ]
    assert json.loads((tmp_path / "ladder.json").read_text())["rungs"]["fast"]["dice"] == 0.69
    assert (tmp_path / "ladder.png").stat().st_size > 5000


def test_what_is_missing_is_named(teacher_2d, images, tmp_path, capsys):
    def refused(message, *arguments):
        assert main(["benchmark", "-device", "cpu", *map(str, arguments)]) == 2
        assert message in capsys.readouterr().err

    models = ("-m", teacher_2d.parent, teacher_2d.parent)
    refused("Expected two models, images and an output")
    refused("Expected two models, images and an output", *models, "-i", images)
    refused("Expected a data set and a configuration", "-training")
    refused("Expected images named CASE_0000.nii.gz", *models, "-i", tmp_path, "-o", tmp_path / "out")
    refused("Expected labels of 6 cases in", *models, "-i", images, "-gt", tmp_path, "-o", tmp_path / "out")
    if not torch.cuda.is_available():
        refused(
            "PyTorch finds no GPU for -device cuda. Choose -device cpu.",
            *models,
            "-i",
            images,
            "-o",
            tmp_path / "out",
            "-device",
            "cuda",
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_whole_ladder(teacher_2d, nnunet, images, tmp_path):
    threads = torch.get_num_threads()
    arguments = [
        "-m",
        teacher_2d.parent,
        teacher_2d.parent,
        "-i",
        images,
        "-gt",
        nnunet / "raw" / DATASET / "labelsTr",
        "-o",
        tmp_path / "ladder",
        "-max_dice_drop",
        1,
    ]
    assert main(["benchmark", "-device", "cpu", *map(str, arguments)]) == 0
    about = json.loads((tmp_path / "ladder/ladder.json").read_text())
    assert about["threads"] == threads
    assert len(about["rungs"]) == 11
    dice = {name: rung["dice"] for name, rung in about["rungs"].items()}
    assert dice["our tile loop"] == pytest.approx(dice["no mirroring"], abs=0.01)
    assert [line["backend"] for line in about["networks"]] == ["torch", "openvino"] * 2
