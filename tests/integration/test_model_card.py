"""The model card of every export: what it says, what it does not know, and what it must not tell."""

import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from color_model import rename_reader, write_model
from damage import MARKUP
from helpers import load
from huggingface_hub import ModelCard

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.deploy.card import write_card
from nnunetv2_hlfd.models.checkpoints import write_checkpoint

DATASET = "Dataset901_Phantom"


def export(model, output, *more):
    assert main(["export", "-m", str(model), "-o", str(output), *more]) == 0
    [folder] = output.glob("Dataset*/nnUNetTrainer*")
    return folder


@pytest.fixture(scope="module")
def color_model(nnunet, tmp_path_factory):
    """A model of three channels that nobody taught and nobody validated."""
    plans = json.loads((nnunet / f"preprocessed/{DATASET}/nnUNetPlans.json").read_text())
    model = write_model(tmp_path_factory.mktemp("model") / "Dataset910_Colors", plans)
    rename_reader(model, "NaturalImage2DIO", ".png")
    return model


@pytest.fixture(scope="module")
def as_onnx(color_model, tmp_path_factory):
    return export(color_model, tmp_path_factory.mktemp("onnx"), "-to", "onnx", "-license", "Hospital use only")


@pytest.fixture(scope="module")
def student(train, variant, teacher_2d):
    """Model folder of a student with a teacher."""
    return train("nnUNetTrainerHLFD", plans=variant("carded", base="nnUNetPlans_short")).parent


def rows(card):
    """First cell -> the others, of all tables."""
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in card.splitlines() if "|" in line]
    return {row[0]: row[1:] for row in cells if row}


def test_a_student_for_nnunet_says_what_it_is(student, tmp_path):
    folder = export(student, tmp_path, "-license", "CC-BY-4.0", "-data_license", "CC-BY-NC-SA-4.0")
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "nnunetv2"
    assert card.data.pipeline_tag == "image-segmentation"
    assert {"nnunet", "knowledge-distillation"} <= set(card.data.tags)
    [result] = card.data.eval_results
    summary = json.loads((student / "fold_0/validation/summary.json").read_text())
    assert result.metric_value == pytest.approx(summary["foreground_mean"]["Dice"], abs=1e-4)

    text = card.text
    assert "This is not a medical device" in text
    assert "## Intended use\n\n**Missing**: the author of the model has to write" in text
    table = rows(text)
    assert table["kidney"] == ["1", "#E69F00"]
    assert table["tumor"] == ["2", "#56B4E9"]
    assert table["0"][:3] == ["CT", "Hounsfield units", "CTNormalization"]
    assert "mm in the network" in table["Spacing"][0]
    assert "the training images had" in table["Spacing"][0]
    assert "as the training images had: LPS (" in table["Orientation"][0]
    assert (table["Weights"], table["Data"]) == (["CC-BY-4.0"], ["CC-BY-NC-SA-4.0"])
    assert table["nnUNetTrainerTeacher__nnUNetPlans_short__2d"][0] == "fold_0/checkpoint_final.pth"
    assert table["Agreement with the teacher"] == ["not measured"]
    assert table["Cost of 8 bits, fold 0"] == ["does not apply: the weights are not stored in 8 bits"]
    for unknown in ("Seconds per image", "Main memory at most", "Machine"):
        assert table[unknown] == ["not measured"]
    assert {"nnunetv2", "torch"} <= set(table)
    assert {"Linux", "macOS", "Windows (PowerShell)"} <= set(table)
    sums = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert table["`fold_0/checkpoint_final.pth`"] == [f"`{sums['fold_0/checkpoint_final.pth']}`"]


def test_what_nobody_stated_is_said_to_be_so(color_model, as_onnx):
    card = ModelCard.load(as_onnx / "README.md")
    assert (card.data.license, card.data.license_name) == ("other", "hospital-use-only")
    assert card.data.eval_results is None
    table = rows(card.text)
    assert table["Data"] == ["not stated"]
    assert table["Dice on the data set's labels, validation of fold 0"] == ["not measured"]
    assert "None recorded" in card.text
    assert [table[number][:2] for number in "012"] == [["R", "0 to 255"], ["G", "0 to 255"], ["B", "0 to 255"]]
    assert {"onnxruntime", "numpy", "SimpleITK"} <= set(table)
    assert "pip install numpy SimpleITK onnxruntime imageio tifffile" in card.text
    assert "files of this kind do not tell" in table["Orientation"][0]


def test_names_of_the_author_do_not_break_the_tables(color_model, tmp_path):
    model = shutil.copytree(color_model, tmp_path / "model")
    dataset = json.loads((model / "dataset.json").read_text())
    dataset["labels"] = {"background": 0, "left | right\nlung: *": 1, "Ödem": 2}
    dataset["licence"] = "CC0-1.0"
    (model / "dataset.json").write_text(json.dumps(dataset))
    card = ModelCard.load(export(model, tmp_path / "out") / "README.md")
    table = rows(card.text)
    assert table["left \\| right lung: *"] == ["1", "#E69F00"]
    assert table["Ödem"] == ["2", "#56B4E9"]
    assert table["Data"] == ["CC0-1.0"]
    assert card.data.license == "unknown"
    assert table["Weights"] == ["not stated"]


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize("name", ["<img src=x onerror=y>", "[x](javascript:y)", "x\x1b[31m\u202ey", "x\n# y"])
def test_names_in_the_record_of_an_export_are_no_markup(student, tmp_path, name):
    folder = export(student, tmp_path)
    record = json.loads((folder / "export.json").read_text())
    record |= {"source": name, "trainer": name, "versions": {name: name}, "orientations": {name: 1}}
    record["validation"] = {name: record["validation"]["0"]}
    record["source_checkpoints_sha256"] = {name: "0"}
    (folder / "export.json").write_text(json.dumps(record))
    write_card(folder)
    card = (folder / "README.md").read_text()
    assert not [mark for mark in MARKUP if mark in re.sub(r"\n```bash\n.*?\n```", "", card, flags=re.DOTALL)]
    assert shlex.quote("".join(each if each.isprintable() else " " for each in name)) in card
    assert yaml.safe_load(card.split("\n---\n")[0])["library_name"] == "nnunetv2"


def test_no_path_and_no_case_leaves_the_machine(student, nnunet, tmp_path):
    """A distillation.json holds the folders of the teacher, of its stored maps and of a cascade's first stage."""
    model = shutil.copytree(student, tmp_path / student.name)
    file = model / "fold_0/distillation.json"
    record = json.loads(file.read_text())
    record["previous_stage"] = str(tmp_path / "stage")
    record["teacher"]["networks"][0]["maps"] = "D:\\data\\maps"
    file.write_text(json.dumps(record))
    dataset = json.loads((model / "dataset.json").read_text())
    dataset["dataset"] = {"secret_patient": {"images": [str(tmp_path / "a.nii.gz")], "label": str(tmp_path)}}
    (model / "dataset.json").write_text(json.dumps(dataset))
    folder = export(model, tmp_path / "out")
    for text_file in folder.glob("*.*"):
        text = text_file.read_text()
        for word in (str(tmp_path), str(nnunet), "D:\\", "secret_patient", "case_0", platform.node()):
            assert word not in text, (text_file.name, word)
    recorded = json.loads((folder / "export.json").read_text())["records"]["0"]
    assert recorded["previous_stage"] == "stage"
    assert recorded["teacher"]["networks"][0]["maps"] == "maps"


def test_no_file_of_an_export_to_onnx_holds_a_path(as_onnx):
    """torch writes its stack traces into the network."""
    for file in as_onnx.rglob("*"):
        assert file.is_dir() or not re.search(rb"site-packages|" + str(Path.cwd()).encode(), file.read_bytes()), file


def program(folder, *arguments):
    return subprocess.run(
        [sys.executable, folder / "predict.pyz", *arguments], capture_output=True, text=True, check=False
    )


def test_the_program_verifies_the_files(as_onnx, tmp_path):
    folder = shutil.copytree(as_onnx, tmp_path / "moved")
    done = program(folder, "--verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"All 5 files of .* are as they were exported\.", done.stdout)
    (folder / "plans.json").write_text("{}")
    (folder / "dataset.json").unlink()
    (folder / "README.md").write_text("completed by the author")
    shutil.copytree(folder / "fold_0", folder / "fold_1")
    done = program(folder, "--verify")
    assert done.returncode == 1
    assert done.stderr.splitlines()[:3] == [
        "dataset.json: missing",
        "plans.json: changed",
        "fold_1/network.onnx: not in SHA256SUMS",
    ]
    (folder / "SHA256SUMS").unlink()
    done = program(folder, "--verify")
    assert done.returncode == 2
    assert "Expected checksums in" in done.stderr
    assert program(folder).returncode == 2


def test_the_command_of_the_card_for_linux_checks_all_files(as_onnx):
    command = rows((as_onnx / "README.md").read_text())["Linux"][0].strip("`")
    subprocess.run(command, shell=True, cwd=as_onnx, check=True, capture_output=True)


def test_a_region_lists_all_its_values(color_model, tmp_path):
    model = shutil.copytree(color_model, tmp_path / "model")
    dataset = json.loads((model / "dataset.json").read_text())
    dataset |= {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
    (model / "dataset.json").write_text(json.dumps(dataset))
    content = load(model / "fold_0/checkpoint_final.pth")
    write_checkpoint(content, model / "fold_0/checkpoint_final.pth")
    text = (export(model, tmp_path / "out") / "README.md").read_text()
    assert rows(text)["whole"] == ["1, 2", "#E69F00"]
    assert "are regions, which may overlap" in text
    front_matter = text.split("---")[1]
    assert yaml.safe_load(front_matter)["library_name"] == "nnunetv2"
