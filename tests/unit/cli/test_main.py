"""The command line: what it prints, and exit code 2 with one message for every mistake."""

import json
import os
import re
import subprocess
import sys

import pytest
from faults import run_on_disk

from nnunetv2_hlfd import __version__
from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.distillation.registry import method_names
from nnunetv2_hlfd.settings.settings import RULES
from nnunetv2_hlfd.training.trainers_path import trainers_path

DATASET = "Dataset901_Phantom"


def exits(arguments):
    """Exit code of a call that argparse ends."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


# Help


def help_of(capsys, *command):
    assert exits([*command, "--help"]) == 0
    return re.sub(r"\s+", " ", capsys.readouterr().out)


def test_help_shows_the_way_from_teacher_to_prediction_and_every_subcommand(capsys):
    text = help_of(capsys)
    for line in (
        "nnUNetv2_train DATASET 2d 0 -tr nnUNetTrainerHLFD",
        "nnUNetv2_predict",
        "trainers_path",
        "plan",
        "train",
    ):
        assert line in text


def test_help_of_plan_has_every_setting_with_its_text_type_limits_and_default(capsys):
    text = help_of(capsys, "plan")
    for name, rule in RULES.items():
        assert f"-{name} VALUE" in text
        assert f"{rule.text} ({rule}; default: " in text
    for said in (
        "(a number of at least 0; default: 0.9)",
        "(true or false; default: true)",
        "or null; default: unset)",
    ):
        assert said in text


def test_help_of_train_names_every_argument_of_nnunetv2_train(capsys, monkeypatch):
    from nnunetv2.run.run_training import run_training_entry

    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", "-h"])
    with pytest.raises(SystemExit):
        run_training_entry()
    options = set(re.findall(r"(?<![\w-])--?\w+", capsys.readouterr().out.split("\n\n")[0]))
    assert {"-tr", "-p", "--c", "--val_best"} < options
    own = help_of(capsys, "train").split("arguments of nnUNetv2_train:")[1]
    assert set(re.findall(r"(?<![\w-])--?\w+", own)) == options - {"-h"}


def test_every_trainer_is_listed_with_a_line_of_its_own(capsys):
    assert main(["trainers"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(lines)[:4] == [f"nnUNetTrainer{name}" for name in ("Teacher", "UNetPlusPlus", "Student", "HLFD")]
    assert {f"nnUNetTrainer{method}" for method in method_names()} < set(lines)
    assert len(set(lines.values())) == len(lines)


def test_help_of_trainers_path_shows_how_to_use_it(capsys):
    assert "export nnUNet_extTrainer=$(nnUNetv2_hlfd trainers_path)" in help_of(capsys, "trainers_path")


def test_the_version_is_printed(capsys):
    assert exits(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


# trainers_path


def test_trainers_path_prints_the_folder_and_nothing_else(capsys):
    assert main(["trainers_path"]) == 0
    assert capsys.readouterr() == (f"{trainers_path()}\n", "")


def test_trainers_path_does_not_need_nnunets_variables_and_answers_from_a_shell(tmp_path):
    command = [sys.executable, "-m", "nnunetv2_hlfd.cli.main", "trainers_path"]
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    output = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True, check=True).stdout
    assert output == f"{trainers_path()}\n"


# plan


def test_plan_writes_a_variant_and_says_how_to_use_it(preprocessed, capsys):
    options = [
        "-beta",
        "1.8",
        "-lambda",
        "0",
        "-late_max_stride",
        "null",
        "-distill_ignored",
        "false",
        "-student",
        "unet_w4",
    ]
    assert main(["plan", "-d", "901", "-name", "x", *options]) == 0
    file = preprocessed / "nnUNetPlans_x.json"
    assert capsys.readouterr().out == f"Wrote {file}\nUse it with -p nnUNetPlans_x\n"
    settings = {"student": "unet_w4", "beta": 1.8, "lambda": 0.0, "late_max_stride": None, "distill_ignored": False}
    assert json.loads(file.read_text())["hlfd"]["settings"] == settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-beta", "-1"], "Expected a number of at least 0 for setting 'beta', got -1.0."),
        (["-beta", "nan"], "Expected a number of at least 0 for setting 'beta', got nan."),
        (["-beta", "high"], "Expected a number of at least 0 for setting 'beta', got 'high'."),
        (["-num_epochs", "1.5"], "Expected an integer of at least 1 or null for setting 'num_epochs', got '1.5'."),
        (
            ["-recipe", "papers"],
            "Expected one of paper, nnunet for setting 'recipe', got 'papers'. Did you mean 'paper'?",
        ),
        (["-p", "NoPlans"], "Expected plans at "),
        (["-d", "955"], "955"),
        (["-d", "Phantom"], "Phantom"),
        (["-name", "a__b"], "Expected a name of letters, digits and single '_', '-' or '.' between them, got 'a__b'."),
    ],
)
def test_a_mistake_in_plan_ends_with_one_message_and_exit_code_2(preprocessed, capsys, options, message):
    assert main(["plan", "-d", DATASET, "-name", "x", *options]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith("nnUNetv2_hlfd plan: ")
    assert message in error
    assert [each.name for each in preprocessed.iterdir()] == ["nnUNetPlans.json"]


def test_an_existing_variant_is_kept_unless_overwrite_is_given(preprocessed, capsys):
    plan = ["plan", "-d", DATASET, "-name", "x", "-beta"]
    assert main([*plan, "1.8"]) == 0
    assert main([*plan, "0.5"]) == 2
    assert "(beta: 0.5 here, 1.8 there). Choose another -name, or add --overwrite." in capsys.readouterr().err
    assert main([*plan, "0.5", "--overwrite"]) == 0
    assert json.loads((preprocessed / "nnUNetPlans_x.json").read_text())["hlfd"]["settings"] == {"beta": 0.5}


@pytest.mark.faults("full, limited and read-only disks")
def test_a_full_disk_leaves_the_variant_that_overwrite_was_to_replace(nnunet, tmp_path):
    plans = nnunet / "preprocessed" / DATASET / "nnUNetPlans.json"
    program = f"{sys.executable} -m nnunetv2_hlfd.cli.main plan -d {DATASET} -name x -beta"
    script = f"""
        mkdir {tmp_path}/{DATASET} && cp {plans} {tmp_path}/{DATASET} && {program} 1.8 || exit 99
        cd {tmp_path}/{DATASET} && cp nnUNetPlans_x.json before.json
        head -c 1000000 /dev/zero > fill 2> /dev/null
        {program} 0.5 --overwrite; code=$?
        cmp nnUNetPlans_x.json before.json && ls -A && exit $code"""
    process = run_on_disk(tmp_path, "size=256k", ["env", f"nnUNet_preprocessed={tmp_path}", "sh", "-c", script])
    assert process.returncode == 2, process.stderr
    assert process.stdout.split()[-4:] == ["before.json", "fill", "nnUNetPlans.json", "nnUNetPlans_x.json"]
    assert process.stderr == (
        f"nnUNetv2_hlfd plan: Could not write {tmp_path}/{DATASET}/nnUNetPlans_x.json: [Errno 28] No space left on "
        f"device. The previous file, if any, is intact.\n"
    )


@pytest.mark.parametrize(
    ("option", "nearest"),
    [
        ("-betta", "-beta"),
        ("-late_stride", "-late_max_stride"),
        ("-pixel_map", "-pixel_maps"),
        ("-distil_ignored", "-distill_ignored"),
    ],
)
def test_a_misspelled_setting_is_answered_with_the_nearest_one(preprocessed, capsys, option, nearest):
    """DESIGN.md, section 3. argparse alone reads -distil_ignored as -d istil_ignored."""
    try:
        code = main(["plan", "-d", DATASET, "-name", "x", option, "tap"])
    except SystemExit as error:
        code = error.code
    message = capsys.readouterr().err.splitlines()[-1]
    assert code == 2
    assert option in message
    assert nearest in message


def test_options_are_not_abbreviated(preprocessed, capsys):
    assert exits(["plan", "-d", DATASET, "-name", "x", "--over"]) == 2
    assert "'--over'. Did you mean '--overwrite'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "SUBCOMMAND"),
        (["plam"], "plam"),
        (["plan", "-d", DATASET], "-name"),
        (["plan", "-name", "x"], "-d"),
        (["trainers_path", "more"], "unrecognized arguments: more"),
    ],
)
def test_incomplete_or_unknown_commands_end_with_usage_and_exit_code_2(capsys, arguments, message):
    assert exits(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: nnUNetv2_hlfd")
    assert message in error
