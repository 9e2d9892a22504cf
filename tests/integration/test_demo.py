import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

import nnunetv2_hlfd.demo.run as demo
from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.datasets.phantom import write_phantom_dataset
from nnunetv2_hlfd.demo.report import COLORS, CONDITION, PictureRow, Result, draw_picture, result_table, write_report
from nnunetv2_hlfd.utilities.steps import StepFailedError


def make_result(title="Teacher", **changes):
    values = {
        "title": title,
        "dice": {"kidney": 0.9123, "tumor": 0.5},
        "case_dice": {"case_001": {"kidney": 1, "tumor": 0}},
        "parameters": 2_500_000,
        "macs": 1_690_000_000,
        "checkpoint_bytes": 30_000_000,
        "seconds_per_case": 3.456,
    }
    return Result(**{**values, **changes})


# The table


def test_table_has_a_row_for_each_model_and_fp32_weights():
    lines = result_table([make_result(), make_result("HLFD", parameters=250_000)]).splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        "",
        "Dice kidney",
        "Dice tumor",
        "Parameters",
        "GMAC",
        "Weights",
        "Checkpoint",
        "s per case",
    ]
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        "Teacher",
        "0.912",
        "0.500",
        "2.5 M",
        "1.69",
        "10.0 MB",
        "30.0 MB",
        "3.46",
    ]
    assert lines[3].startswith("| HLFD ")
    assert "1.0 MB" in lines[3]  # 250 000 parameters of 4 bytes
    assert len({len(line) for line in lines}) == 1


# The picture


def pixels(figure):
    figure.set_dpi(100)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def test_picture_shows_images_and_both_labels():
    image = np.linspace(-200, 300, 32 * 32).reshape(32, 32)
    labels = np.zeros((32, 32), np.uint8)
    labels[4:20, 4:20], labels[8:14, 8:14] = 1, 2
    row = PictureRow(
        name="case",
        image=image,
        truth=labels,
        predictions=[labels, np.zeros_like(labels)],
        captions=["kidney 1.00", "kidney 0.00"],
    )
    figure = draw_picture([row, row], ["Teacher", "Student alone"])
    panels = [axis.get_title() for axis in figure.axes[:4]]
    assert panels == ["Image", "Truth", "Teacher", "Student alone"]
    assert figure.axes[2].get_xlabel() == "kidney 1.00"
    assert CONDITION in figure.get_suptitle()
    drawn = pixels(figure).astype(int)
    assert drawn.std() > 20
    for color in COLORS.values():
        rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
        assert (abs(drawn - rgb).max(-1) < 40).sum() > 100
    assert len(figure.axes[0].images) == 1  # the image column has no overlay
    assert len(figure.axes[1].images) == 3
    assert len(figure.axes[3].images) == 1


@pytest.fixture
def finished_demo(tmp_path):
    """A demo's folder after its last step, with the truth as every prediction."""
    raw = tmp_path / "raw" / demo.DATASET
    write_phantom_dataset(raw, num_training=1, num_test=2, size=(8, 32, 32), spacing=(10, 10, 10))
    metrics = {"1": {"Dice": 0.75}, "2": {"Dice": 0.25}}
    for model in demo.MODELS:
        fold = model.fold_folder(tmp_path / "results" / demo.DATASET, demo.PLANS).path
        fold.mkdir(parents=True)
        (fold / "checkpoint_final.pth").write_bytes(bytes(2_000_000))
        sizes = {"student": {"parameters": 1_000_000, "macs": 10**9}, "teacher": {"parameters": 10**7, "macs": 10**10}}
        (fold / "distillation.json").write_text(json.dumps(sizes))
        output = tmp_path / "predictions" / model.name
        output.mkdir(parents=True)
        cases = []
        for file in sorted((raw / "labelsTs").iterdir()):
            (output / file.name).write_bytes(file.read_bytes())
            cases.append({"reference_file": str(file), "metrics": metrics})
        (output / "summary.json").write_text(json.dumps({"mean": metrics, "metric_per_case": cases}))
    return tmp_path


def test_report_reads_scores_sizes_and_times(finished_demo):
    seconds = {f"predict_{model.name}": 5.0 for model in demo.MODELS}
    text = write_report(finished_demo, demo.DATASET, demo.PLANS, demo.MODELS, seconds)
    assert (finished_demo / "result.md").read_text() == text
    assert CONDITION in text
    teacher, student, hlfd = (next(line for line in text.splitlines() if each.title in line) for each in demo.MODELS)
    assert re.findall(r"[\d.]+", teacher) == ["0.750", "0.250", "10", "10", "40.0", "2.0", "2.50"]
    assert (
        re.findall(r"[\d.]+", student)
        == re.findall(r"[\d.]+", hlfd)
        == [
            "0.750",
            "0.250",
            "1",
            "1",
            "4.0",
            "2.0",
            "2.50",
        ]
    )
    assert imread(finished_demo / "result.png").std() > 0.05


# The steps


def test_steps_are_the_commands_a_user_types(tmp_path):
    steps = {step.name: step for step in demo.demo_steps(tmp_path, "cpu")}
    assert list(steps) == [
        "data",
        "preprocess",
        "plan",
        "train_teacher",
        "train_student",
        "train_hlfd",
        "predict_teacher",
        "predict_student",
        "predict_hlfd",
        "evaluate_teacher",
        "evaluate_student",
        "evaluate_hlfd",
    ]
    assert list(steps["preprocess"].command())[:5] == ["nnUNetv2_plan_and_preprocess", "-d", "900", "-c", "2d"]
    assert " ".join(steps["plan"].command()).startswith("nnUNetv2_hlfd plan -d 900 -name demo -student")
    assert " ".join(steps["train_hlfd"].command()) == (
        "nnUNetv2_hlfd train 900 2d 0 -tr nnUNetTrainerHLFD -p nnUNetPlans_demo -device cpu"
    )
    assert " ".join(steps["predict_hlfd"].command()).startswith(
        "nnUNetv2_predict -d 900 -c 2d -f 0 -tr nnUNetTrainerHLFD -p nnUNetPlans_demo"
    )


@pytest.mark.faults("killed processes")
@pytest.mark.parametrize(
    ("checkpoint", "flag"), [("checkpoint_final.pth", "--val"), ("checkpoint_latest.pth", "--c"), ("nothing", None)]
)
def test_interrupted_training_goes_on(tmp_path, checkpoint, flag):
    teacher = demo.MODELS[0]
    fold = teacher.fold_folder(tmp_path / "results" / demo.DATASET, demo.PLANS).path
    fold.mkdir(parents=True)
    (fold / checkpoint).touch()
    [step] = [each for each in demo.demo_steps(tmp_path, "cpu") if each.name == "train_teacher"]
    last = step.command()[-1]
    assert last == (flag or "cpu")
    assert fold.exists() == (flag is not None)  # what is no training is removed


def test_data_step_replaces_what_an_interrupted_run_left(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "NUM_TRAINING", 1)
    monkeypatch.setattr(demo, "SIZE", (8, 32, 32))
    leftover = tmp_path / "raw" / demo.DATASET / "imagesTr" / "leftover.nii.gz"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    step = demo.demo_steps(tmp_path, "cpu")[0]
    assert step.command() is None
    assert step.product.is_file()
    assert not leftover.exists()


def test_failure_ends_with_exit_code_1(tmp_path, monkeypatch, capsys):
    def fail(folder, device):
        raise StepFailedError("Step 'Train' failed")

    monkeypatch.setattr(demo, "run_demo", fail)
    assert main(["demo", "-o", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "nnUNetv2_hlfd demo: Step 'Train' failed\n"


# The folder


def test_the_demos_commands_work_in_its_folder_whatever_is_set(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "/somewhere/else")
    monkeypatch.setenv("nnUNet_hlfd_teacher", "/somewhere/else")
    environment = demo.open_workspace(tmp_path, "cpu").environment
    assert environment["nnUNet_raw"] == str(tmp_path / "raw")
    assert "/somewhere/else" not in environment.values()


def test_a_demo_on_another_device_is_refused(tmp_path):
    demo.open_workspace(tmp_path, "cpu")
    with pytest.raises(ValueError, match=r"other choices: \{'device': 'cpu'\} there, \{'device': 'cuda'\} here"):
        demo.open_workspace(tmp_path, "cuda")


def test_missing_cuda_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="-device cpu"):
        demo.run_demo(tmp_path, "cuda")


def test_run_demo_runs_the_steps_and_reports(finished_demo, monkeypatch, capsys):
    folder = finished_demo

    def finish(workspace, steps):
        for step in steps:
            workspace.finish(step, 8.0)

    monkeypatch.setattr(demo, "run_steps", finish)
    (folder / "demo.json").write_text(json.dumps({"made_with": demo.made_with("cpu"), "seconds": {}}))
    text = demo.run_demo(folder, "cpu")
    printed = capsys.readouterr().out
    assert text in printed
    assert "nnUNetv2_hlfd compress -m MODEL_FOLDER -i IMAGES" in printed.splitlines()[-1]
    assert "4.00" in text  # 8 s for 2 cases


# Everything


@pytest.mark.slow
def test_demo(tmp_path):
    folder = tmp_path / "demo"
    elsewhere = {f"nnUNet_{each}": str(tmp_path / "elsewhere" / each) for each in ("raw", "preprocessed", "results")}
    command = [str(Path(sys.executable).parent / "nnUNetv2_hlfd"), "demo", "-o", str(folder), "-device", "cpu"]

    def run():
        start = time.monotonic()
        result = subprocess.run(command, env={**os.environ, **elsewhere}, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout, time.monotonic() - start

    def contents():
        kept = [each for each in folder.rglob("*") if each.is_file() and each.name not in ("demo.json", "result.png")]
        return {each: (each.stat().st_mtime_ns if each.name != "result.md" else each.read_text()) for each in kept}

    output, first_seconds = run()
    text = (folder / "result.md").read_text()
    assert text in output
    assert CONDITION in text
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][2:] == [
        each.title for each in demo.MODELS
    ]
    for model in demo.MODELS:  # all have learned something in this short time
        [row] = re.findall(rf"^\| {re.escape(model.title)} +\| ([\d.]+) +\| ([\d.]+)", text, re.MULTILINE)
        kidney, tumor = map(float, row)
        assert kidney > 0.75, model.title
        assert tumor > 0.1, model.title
    assert imread(folder / "result.png").std() > 0.1
    assert not (tmp_path / "elsewhere").exists()

    before = contents()
    output, seconds = run()
    assert output.count("done before") == len(demo.demo_steps(folder, "cpu"))
    assert contents() == before
    assert seconds < first_seconds / 4
