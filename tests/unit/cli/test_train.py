"""`nnUNetv2_hlfd train`: trainers in nnU-Net's reach, the dry run, and replacing an earlier run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search, trainers_path
from nnunetv2_hlfd.utilities.errors import UserError

DATASET = "Dataset901_Phantom"
TRAINERS = {
    "nnUNetTrainerHLFD",
    "nnUNetTrainerHLFD_noFeature",
    "nnUNetTrainerHLFD_noPixel",
    "nnUNetTrainerStudent",
    "nnUNetTrainerTeacher",
}


# Where nnU-Net finds the trainers


def test_the_trainers_folder_holds_nothing_but_the_trainers():
    """nnU-Net imports every module below the folder while it searches."""
    files = [each.name for each in trainers_path().rglob("*") if "__pycache__" not in each.parts]
    assert files == ["nnunetv2_hlfd_trainers.py"]


def test_nnunet_finds_every_trainer_by_the_environment_variable_alone(tmp_path):
    """In a fresh interpreter, far from the sources, as nnUNetv2_train does."""
    script = """
import nnunetv2_hlfd_names as names, sys
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
assert "nnunetv2_hlfd" not in sys.modules
for name in names.TRAINERS:
    trainer = find(name)
    print("FOUND", name, trainer.__name__, trainer.__module__.split(".")[0])
"""
    (tmp_path / "nnunetv2_hlfd_names.py").write_text(f"TRAINERS = {sorted(TRAINERS)!r}\n")
    (tmp_path / "find.py").write_text(script)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")}
    variables["nnUNet_extTrainer"] = str(trainers_path())
    process = subprocess.run(
        [sys.executable, "find.py"], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    found = [line.split()[1:] for line in process.stdout.splitlines() if line.startswith("FOUND")]
    assert found == [[name, name, "nnunetv2_hlfd"] for name in sorted(TRAINERS)]


@pytest.mark.parametrize("given", [None, "", "/other", f"/other{os.pathsep}/third"])
def test_the_trainer_search_is_extended_once_and_keeps_what_is_there(monkeypatch, given):
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    if given is not None:
        monkeypatch.setenv("nnUNet_extTrainer", given)
    extend_trainer_search()
    extend_trainer_search()
    before = given.split(os.pathsep) if given else []
    assert os.environ["nnUNet_extTrainer"].split(os.pathsep) == [*before, str(trainers_path())]


# The dry run


def tree(folder):
    return {str(each): each.stat().st_mtime_ns for each in Path(folder).rglob("*") if each.is_file()} | {
        str(each): 0 for each in Path(folder).rglob("*") if each.is_dir()
    }


def dry_run(trainer, plans, *more):
    return main(["train", DATASET, "2d", "0", "-tr", trainer, "-p", plans, "-device", "cpu", "--dry_run", *more])


def test_a_dry_run_prints_taps_sizes_and_seconds_and_leaves_nothing_behind(
    nnunet, variant, teacher_2d, monkeypatch, capsys
):
    plans = variant("dry", num_epochs=7, num_iterations_per_epoch=11)
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
    before = tree(nnunet)
    assert dry_run("nnUNetTrainerHLFD", plans) == 0
    output = capsys.readouterr().out
    assert f"Teacher: {teacher_2d.parent}/fold_0/checkpoint_final.pth" in output
    rows = [line.split() for line in output.splitlines() if line.startswith(("student  ", "teacher  "))]
    assert [(row[0], row[-1]) for row in rows] == [
        *(("student", role) for role in ("-", "early", "mid", "mid")),
        *(("teacher", role) for role in ("-", "mid", "mid", "late")),
    ]
    assert [row[4] for row in rows if row[0] == "student"] == ["48x48", "24x24", "12x12", "6x6"]
    assert "teacher's intermediate outputs for p_mid (0 is full resolution): 1" in output
    sizes = [line for line in output.splitlines() if line.endswith("GMAC per patch")]
    assert [line.split(":")[0] for line in sizes] == ["Student", "Teacher"]
    assert "s per training step (batch 2, cpu); 77 steps: about " in output
    assert re.search(r"augmentation and validation apart. Memory: about [\d.]+ GB. Disk: about \d+ MB of check", output)
    assert output.rstrip().endswith("Dry run: nothing was trained or written.")
    assert tree(nnunet) == before


def test_a_dry_run_works_for_a_trainer_without_teacher(nnunet, variant, capsys):
    before = tree(nnunet / "results")
    assert dry_run("nnUNetTrainerStudent", variant("dry_student")) == 0
    assert "s per training step" in capsys.readouterr().out
    assert tree(nnunet / "results") == before


def test_a_dry_run_of_a_stock_trainer_is_refused(nnunet, variant, capsys):
    before = tree(nnunet / "results")
    assert dry_run("nnUNetTrainer", variant("dry_stock")) == 2
    message = "Expected a trainer of this package, such as -tr nnUNetTrainerHLFD, got nnUNetTrainer."
    assert capsys.readouterr().err == f"nnUNetv2_hlfd train: {message}\n"
    assert tree(nnunet / "results") == before


def test_a_dry_run_makes_the_checks_of_a_training(nnunet, variant, capsys):
    before = tree(nnunet / "results")
    assert dry_run("nnUNetTrainerHLFD", variant("dry_lonely")) == 2
    assert "nnUNetv2_hlfd train: No teacher found. Looked at:" in capsys.readouterr().err
    assert tree(nnunet / "results") == before


# Refusals: one message, nothing left behind

MISTAKES = {
    "fold that is no number": ([DATASET, "2d", "first"], "Expected a fold number or 'all', got 'first'"),
    "fold beyond the split": ([DATASET, "2d", "5"], "Expected folds 0-4, those of "),
    "misspelt trainer": (["-tr", "nnUNetTrainerHLFD_noPixels"], "Did you mean 'nnUNetTrainerHLFD_noPixel'?"),
    "method for a trainer": (["-tr", "HLFD"], "No trainer is called 'HLFD'. Did you mean 'nnUNetTrainerHLFD'?"),
    "no plans": (["-p", "nnUNetNoPlans"], "nnUNetNoPlans.json, found none. Did you mean 'nnUNetPlans'?"),
    "no data set": (["955", "2d", "0"], "Expected the name or ID of a data set, got '955'"),
    "unplanned data set": (["Dataset955_Phantom", "2d", "0"], "nnUNetv2_plan_and_preprocess -d 955"),
    "no configuration": ([DATASET, "3d_fulres", "0"], "Did you mean '3d_fullres'?"),
    "two flags": (["--c", "--val"], "--c and --val exclude each other"),
    "unfinished": (["--val"], "fold_0/checkpoint_final.pth for --val, found none"),
    "several GPUs": (["-num_gpus", "64"], "-num_gpus 64 needs as many GPUs"),
}


@pytest.mark.parametrize("more", [[], ["--dry_run"]])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_with_one_message_and_leaves_nothing_behind(nnunet, capsys, mistake, more):
    given, expected = MISTAKES[mistake]
    arguments = given if given[0][0] != "-" else [DATASET, "2d", "0", *given]
    trainer = [] if "-tr" in arguments else ["-tr", "nnUNetTrainerStudent"]
    before = tree(nnunet / "results")
    assert main(["train", *arguments, *trainer, "-device", "cpu", *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("nnUNetv2_hlfd train: ")
    assert error.count("\n") == 1
    assert expected in error
    assert tree(nnunet / "results") == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
@pytest.mark.parametrize("more", [["--dry_run"], [], ["-device", "cuda"]])
def test_a_training_without_gpu_says_how_to_use_the_cpu(nnunet, variant, capsys, more):
    """nnU-Net's default is -device cuda."""
    before = tree(nnunet / "results")
    assert main(["train", DATASET, "2d", "0", "-tr", "nnUNetTrainerStudent", "-p", variant("gpu"), *more]) == 2
    assert "-device cpu" in capsys.readouterr().err
    assert tree(nnunet / "results") == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-beta", "1.8"], "-beta is a setting, and settings live in plans. Make plans with it: nnUNetv2_hlfd plan"),
        (["--num_epochs=5"], "-name NAME -num_epochs VALUE. Then train with -p nnUNetPlans_NAME"),
        (["-previous_stage", "x"], "-previous_stage is a setting"),
        (["-devise", "cpu"], "unknown argument '-devise'. Did you mean '-device'?"),
    ],
)
def test_a_setting_or_a_misspelt_argument_is_answered(capsys, options, expected):
    with pytest.raises(SystemExit) as caught:
        main(["train", DATASET, "2d", "0", *options])
    assert caught.value.code == 2
    assert expected in capsys.readouterr().err


def damage_data(folder, kind):
    if kind == "missing":
        shutil.rmtree(folder / "nnUNetPlans_2d")
    else:
        plans = json.loads((folder / "nnUNetPlans.json").read_text())
        plans["configurations"]["2d"]["spacing"] = [5.0, 5.0]
        (folder / "nnUNetPlans.json").write_text(json.dumps(plans))


@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "nnUNetTrainerStudent"])
@pytest.mark.parametrize("kind", ["missing", "of other plans"])
def test_missing_cases_and_cases_of_other_plans_are_refused(nnunet, tmp_path, monkeypatch, capsys, kind, trainer):
    folder = tmp_path / DATASET
    shutil.copytree(nnunet / "preprocessed" / DATASET, folder)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    damage_data(folder, kind)
    before = tree(nnunet / "results")
    assert main(["train", DATASET, "2d", "0", "-tr", trainer, "-device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert f"preprocessed cases in {folder}/nnUNetPlans_2d" in error
    assert error.endswith(" with: nnUNetv2_preprocess -d 901 -plans_name nnUNetPlans -c 2d\n")
    if kind == "of other plans":
        assert "case_000 has the shape 1x8x48x48, and with nnUNetPlans it would have 1x8x72x72." in error
    assert tree(nnunet / "results") == before


def test_a_trainer_that_nnunet_makes_refuses_alike_and_leaves_nothing_behind(nnunet):
    """nnU-Net's constructor makes folder and log before a trainer can look at anything."""
    from nnunetv2.run.run_training import run_training

    before = tree(nnunet / "results")
    with pytest.raises(UserError, match="Expected folds 0-4, those of "):
        run_training(DATASET, "2d", 6, "nnUNetTrainerStudent", device=torch.device("cpu"))
    assert tree(nnunet / "results") == before


def test_no_teacher_leaves_nothing_behind(nnunet, variant, capsys):
    before = tree(nnunet / "results")
    assert run_training(variant("lonely"), trainer="nnUNetTrainerHLFD") == 2
    assert "nnUNetv2_hlfd train: No teacher found. Looked at:" in capsys.readouterr().err
    assert tree(nnunet / "results") == before


def test_options_may_stand_before_the_data_set(nnunet, variant, capsys):
    plans = variant("dry_order")
    options = ["-num_gpus", "1", "-tr", "nnUNetTrainerStudent", "-p", plans, "-device", "cpu"]
    assert main(["train", "--dry_run", *options, DATASET, "2d", "0"]) == 0
    assert "s per training step" in capsys.readouterr().out


# Replacing an earlier run


def run_training(plans, *more, trainer="nnUNetTrainerStudent", fold="0"):
    return main(["train", DATASET, "2d", fold, "-tr", trainer, "-p", plans, "-device", "cpu", *more])


@pytest.fixture
def earlier_run(nnunet, variant):
    """A model folder as a run with beta 0.9 leaves it, as far as the checks read it; the plans now say beta 1.8."""
    name = f"earlier{len(list(nnunet.rglob('nnUNetPlans_earlier*.json')))}"
    plans = variant(name, num_epochs=1, num_iterations_per_epoch=1)
    model = nnunet / "results" / DATASET / f"nnUNetTrainerStudent__{plans}__2d"
    content = json.loads((nnunet / "preprocessed" / DATASET / f"{plans}.json").read_text())
    (model / "fold_0").mkdir(parents=True)
    (model / "plans.json").write_text(json.dumps(content))
    (model / "fold_0" / "distillation.json").write_text(
        json.dumps({"given": content["hlfd"]["settings"] | {"beta": 0.9}})
    )
    variant(name, num_epochs=1, num_iterations_per_epoch=1, beta=1.8)
    return plans, model


def test_an_earlier_run_with_other_settings_is_refused_and_replaced_on_request(nnunet, earlier_run, capsys):
    plans, model = earlier_run
    assert run_training(plans) == 2
    error = capsys.readouterr().err
    assert f"{model}/fold_0/distillation.json belongs to a run with other settings (beta: 1.8 here, 0.9 there)" in error
    assert "nnUNetv2_hlfd train ... --overwrite" in error
    assert not (model / "fold_0" / "checkpoint_final.pth").exists()
    assert run_training(plans, "--overwrite") == 0
    assert (model / "fold_0" / "checkpoint_final.pth").is_file()
    assert json.loads((model / "plans.json").read_text())["hlfd"]["settings"]["beta"] == 1.8
    assert json.loads((model / "fold_0" / "distillation.json").read_text())["given"]["beta"] == 1.8


def test_a_dry_run_with_overwrite_replaces_nothing(earlier_run):
    plans, model = earlier_run
    before = tree(model)
    assert run_training(plans, "--overwrite", "--dry_run") == 0
    assert tree(model) == before


def test_a_run_that_is_refused_has_replaced_nothing(nnunet, earlier_run, capsys):
    """An old model without plans.json could predict nothing any more."""
    plans, student_model = earlier_run
    model = student_model.rename(student_model.with_name(f"nnUNetTrainerHLFD__{plans}__2d"))
    before = {name: Path(name).read_text() for name in tree(model) if name.endswith(".json")}
    assert run_training(plans, "--overwrite", trainer="nnUNetTrainerHLFD") == 2
    assert "No teacher found" in capsys.readouterr().err
    assert {name: Path(name).read_text() for name in before if Path(name).is_file()} == before


def test_overwriting_a_fold_beside_another_of_other_settings_is_answered_with_a_way_that_works(earlier_run, capsys):
    """The folds of one model folder share its plans.json: fold 1 cannot have other settings than fold 0."""
    plans, model = earlier_run
    assert run_training(plans, "--overwrite", fold="1") == 2
    error = capsys.readouterr().err
    assert f"{model}/fold_0/distillation.json" in error
    assert "--overwrite" not in error, "it was given and cannot help"
