"""Two commands on one target: the second is told who is there, or waits, and nothing is done twice or lost."""

import csv
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from downloads import write_kits19
from faults import held_by_another_process
from helpers import make_trainer
from processes import Process, run_script
from report_folders import cases, write_model

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.lock import LOCK_FILE

DATASET = "Dataset901_Phantom"
COMMAND = Path(sys.executable).parent / "nnUNetv2_hlfd"
IN_USE = "is in use by the other work (process "


def tree(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def refused(capsys, folder, *arguments, name=LOCK_FILE):
    """The command says who is in the folder, and leaves everything as it is."""
    with held_by_another_process(folder, name):
        before = tree(folder.parent)
        assert main([str(argument) for argument in arguments]) == 2
        assert f"{folder} {IN_USE}" in capsys.readouterr().err
        assert tree(folder.parent) == before
    return arguments


@pytest.mark.faults("two processes on one target")
def test_a_second_prediction_into_a_folder_is_refused_and_other_parts_are_not(teacher_2d, nnunet, tmp_path, capsys):
    images = nnunet / "raw" / DATASET / "imagesTs"
    command = ["predict", "-m", teacher_2d.parent, "-i", images, "-o", tmp_path / "out", "-device", "cpu"]
    refused(capsys, tmp_path / "out", *command)
    parts = [*command, "-num_parts", 2, "-part_id"]
    refused(capsys, tmp_path / "out", *parts, 1, name=f".part1of2{LOCK_FILE}")
    with held_by_another_process(tmp_path / "out", f".part1of2{LOCK_FILE}"):
        assert main([str(argument) for argument in [*parts, 0]]) == 0
    assert list((tmp_path / "out").glob("*.nii.gz"))
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.faults("two processes on one target")
def test_a_second_report_into_a_folder_is_refused(tmp_path, capsys):
    models = [write_model(tmp_path, f"nnUNetTrainer{name}", cases(0.5, 0.6)) for name in ("Teacher", "HLFD")]
    refused(capsys, tmp_path / "report", "report", "-m", *models, "-o", tmp_path / "report")


@pytest.mark.faults("two processes on one target")
def test_a_second_export_of_a_model_is_refused(teacher_2d, tmp_path, capsys):
    folder = tmp_path / DATASET
    name = ".nnUNetTrainer__nnUNetPlans_shortHLFD__2d.lock"
    refused(capsys, folder, "export", "-m", teacher_2d.parent, "-o", tmp_path, name=name)
    assert main(["export", "-m", str(teacher_2d.parent), "-o", str(tmp_path)]) == 0
    assert {path.name for path in folder.iterdir()} == {"nnUNetTrainer__nnUNetPlans_shortHLFD__2d"}


@pytest.mark.faults("two processes on one target")
def test_a_second_conversion_of_a_data_set_is_refused(tmp_path, monkeypatch, capsys):
    download = write_kits19(tmp_path / "download", cases=[0])
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    refused(capsys, tmp_path / "raw/Dataset019_KiTS19", "convert", "kits19", download)


@pytest.mark.faults("two processes on one target")
def test_plans_of_the_same_name_are_written_one_after_the_other(preprocessed, capsys):
    """The second finds other settings there, as if it had been started later."""
    command = ["plan", "-d", "901", "-name", "twice", "-beta"]
    with held_by_another_process(preprocessed, ".nnUNetPlans_twice.lock") as holder:
        threading.Timer(0.5, holder.stdin.close).start()
        assert main([*command, "1.5"]) == 0
        assert holder.wait() == 0
    assert main([*command, "1.6"]) == 2
    assert "exists with other settings (beta: 1.6 here, 1.5 there)" in capsys.readouterr().err


@pytest.mark.faults("two processes on one target")
def test_a_second_training_or_validation_of_a_fold_is_refused(nnunet, variant):
    plans = variant("locked", num_epochs=1)
    trainer = make_trainer(nnunet, "nnUNetTrainerStudent", plans)
    folder = Path(trainer.output_folder_base)
    with held_by_another_process(folder, f".fold_0{LOCK_FILE}"):
        for work in (trainer.run_training, trainer.perform_actual_validation):
            with pytest.raises(UserError, match=f"^{folder} is in use by the other work"):
                work()
        assert [path.name for path in folder.iterdir()] == [f".fold_0{LOCK_FILE}"]
    make_trainer(nnunet, "nnUNetTrainerStudent", plans).run_training()
    assert (folder / "fold_0/checkpoint_final.pth").is_file()
    assert not list(folder.glob(".*"))


def write_study(name, tmp_path, **more):
    content = {
        "study": name,
        "dataset": 901,
        "configuration": "2d",
        "settings": {
            "student": "resnet18_w8",
            "num_epochs": 1,
            "num_iterations_per_epoch": 1,
            "num_val_iterations_per_epoch": 1,
        },
        "arms": {"alone": {"trainer": "nnUNetTrainerStudent"}, "HLFD": {"trainer": "nnUNetTrainerHLFD"}},
        **more,
    }
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(content))  # JSON is YAML
    return file


@pytest.mark.faults("two processes on one target")
def test_a_second_start_of_a_study_is_refused(nnunet, tmp_path, capsys):
    folder = nnunet / "results" / DATASET / "study_twice"
    refused(capsys, folder, "study", write_study("twice", tmp_path), "-device", "cpu")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.faults("two processes on one target")
@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 3])
def test_of_two_studies_one_trains_every_run_once(nnunet, tmp_path, seconds):
    file = write_study(f"both{seconds}", tmp_path)
    call = (run_script, (COMMAND, ["study", str(file), "-device", "cpu", "-np", "2"]), os.environ)
    with Process(*call, tmp_path / "first") as first:
        time.sleep(seconds)
        with Process(*call, tmp_path / "second") as second:
            codes = [first.wait(), second.wait()]
            printed = [first.stderr, second.stderr]
    assert sorted(codes) == [0, 2]
    folder = nnunet / "results" / DATASET / f"study_both{seconds}"
    assert f"{folder} is in use by nnUNetv2_hlfd study study.yaml (process" in printed[codes.index(2)]
    with (folder / "runs.csv").open() as opened:
        rows = [(row["arm"], row["result"]) for row in csv.DictReader(opened)]
    assert sorted(rows) == [(arm, "finished") for arm in ("HLFD", "alone", "teacher")]
    for log in folder.glob("*.log"):
        assert log.read_text().count("Epoch 0") == 1


@pytest.mark.faults("two processes on one target")
@pytest.mark.slow
def test_of_two_predictions_together_one_is_refused_and_no_case_is_lost(teacher_2d, nnunet, tmp_path):
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    source = next((nnunet / "raw" / DATASET / "imagesTr").glob("*.nii.gz"))
    for number in range(30):
        (images / f"case{number:03d}_0000.nii.gz").symlink_to(source)
    command = ["predict", "-m", str(teacher_2d.parent), "-i", str(images), "-o", str(output), "-device", "cpu"]
    calls = [(run_script, (COMMAND, command), os.environ, tmp_path / name) for name in "ab"]
    with Process(*calls[0]) as first, Process(*calls[1]) as second:
        assert sorted([first.wait(), second.wait()]) == [0, 2]
    assert len(list(output.glob("case*.nii.gz"))) == 30
