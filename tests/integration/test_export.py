"""`nnUNetv2_hlfd export -to nnunet`: what stock nnU-Net installs and predicts with, without this package."""

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from helpers import PREDICT, prediction, stock
from machine_paths import machine_paths

from nnunetv2_hlfd.cli.main import main

DATASET = "Dataset901_Phantom"
INSTALL = "nnunetv2.model_sharing.entry_points:install_from_zip_entry_point"


def predict(results, nnunet, output, plans, trainer):
    images = nnunet / "raw" / DATASET / "imagesTs"
    arguments = prediction(results / DATASET / f"{trainer}__{plans}__2d", images, output)
    stock(PREDICT, *arguments, "--save_probabilities", nnUNet_results=str(results))
    [labels] = output.glob("*.nii.gz")
    with np.load(next(output.glob("*.npz"))) as file:
        probabilities = file["probabilities"]
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(labels))), probabilities


def export(model, output, *more):
    return main(["export", "-m", str(model), "-o", str(output), *more])


@pytest.fixture(scope="module")
def student(train, variant, teacher_2d):
    """Model folder of a student with a teacher."""
    return train("nnUNetTrainerHLFD", plans=variant("exported", base="nnUNetPlans_short")).parent


def checkpoint(model, name="nnUNetTrainer__nnUNetPlans_short_exportedHLFD__2d"):
    return model / DATASET / name / "fold_0" / "checkpoint_final.pth"


def test_stock_nnunet_installs_and_predicts_the_export_as_the_student_itself(student, nnunet, tmp_path, capsys):
    assert export(student, tmp_path / "out") == 0
    archive = tmp_path / "out" / f"{DATASET}_nnUNetTrainer__nnUNetPlans_short_exportedHLFD__2d.zip"
    assert f"and {archive}: " in capsys.readouterr().out
    results = tmp_path / "results"
    results.mkdir()
    stock(INSTALL, archive, nnUNet_results=str(results))
    installed = predict(results, nnunet, tmp_path / "a", "nnUNetPlans_short_exportedHLFD", "nnUNetTrainer")
    own = predict(nnunet / "results", nnunet, tmp_path / "b", "nnUNetPlans_short_exported", "nnUNetTrainerHLFD")
    for exported, expected in zip(installed, own, strict=True):
        assert np.array_equal(exported, expected)


def test_half_precision_halves_the_file_and_changes_probabilities_little(student, nnunet, tmp_path):
    assert export(student, tmp_path / "full") == 0
    assert export(student, tmp_path / "half", "--half") == 0
    full, half = (
        torch.load(checkpoint(tmp_path / each), weights_only=True)["network_weights"] for each in ("full", "half")
    )
    assert {each.dtype for each in half.values()} == {torch.float16}
    for name, weight in full.items():
        assert torch.equal(weight.half(), half[name])
    plans = "nnUNetPlans_short_exportedHLFD"
    predicted = [
        predict(tmp_path / each, nnunet, tmp_path / f"{each}_out", plans, "nnUNetTrainer")[1]
        for each in ("full", "half")
    ]
    assert np.abs(predicted[0] - predicted[1]).max() < 2e-3
    assert not np.array_equal(*predicted)


@pytest.mark.parametrize("more", [(), ("--half",)])
def test_each_weight_is_stored_once_and_nothing_of_the_training(student, tmp_path, more):
    """nnU-Net's state dict names the encoder's weights three times; the file has the size of the network."""
    assert export(student, tmp_path, *more) == 0
    file = checkpoint(tmp_path)
    content = torch.load(file, weights_only=True)
    assert list(content) == ["network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes", "hlfd"]
    assert content["trainer_name"] == "nnUNetTrainer"
    assert content["hlfd"]["trainer"] == "nnUNetTrainerHLFD"
    parameters = json.loads((student / "fold_0" / "distillation.json").read_text())["student"]["parameters"]
    weights = parameters * (2 if more else 4)
    assert weights < file.stat().st_size < 1.15 * weights + 200_000  # names and the zip's directory
    assert file.stat().st_size < (student / "fold_0" / file.name).stat().st_size / 2


def test_installing_leaves_the_teacher_as_it_is(student, nnunet, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(nnunet / "results" / DATASET, results / DATASET)
    before = {each: each.read_bytes() for each in results.rglob("*") if each.is_file()}
    assert export(student, tmp_path / "out") == 0
    [archive] = (tmp_path / "out").glob("*.zip")
    stock(INSTALL, archive, nnUNet_results=str(results))
    assert all(each.read_bytes() == content for each, content in before.items())
    assert len(list(results.rglob("*.pth"))) == len([each for each in before if each.suffix == ".pth"]) + 1


def test_without_mirroring_the_predictor_makes_one_pass(student, tmp_path):
    assert export(student, tmp_path / "with") == 0
    assert export(student, tmp_path / "without", "--no_mirroring") == 0
    axes = [
        torch.load(checkpoint(tmp_path / each), weights_only=True)["inference_allowed_mirroring_axes"]
        for each in ("with", "without")
    ]
    assert axes == [(0, 1), None]


def test_the_checksums_and_the_provenance_stand_beside_it(student, tmp_path):
    assert export(student, tmp_path) == 0
    folder = checkpoint(tmp_path).parents[1]
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    listed = {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert listed == {
        "dataset.json",
        "dataset_fingerprint.json",
        "export.json",
        "fold_0/checkpoint_final.pth",
        "plans.json",
    }
    provenance = json.loads((folder / "export.json").read_text())
    assert provenance["source"] == student.name
    assert (
        provenance["records"]["0"]["teacher"]["networks"][0]["folder"] == "nnUNetTrainerTeacher__nnUNetPlans_short__2d"
    )
    [archive] = tmp_path.glob("*.zip")
    with zipfile.ZipFile(archive) as file:
        assert {
            Path(each).relative_to(f"{DATASET}/{folder.name}").as_posix()
            for each in file.namelist()
            if not each.endswith("/")
        } == {*listed, "README.md", "SHA256SUMS"}


def test_no_file_names_a_folder_of_the_machine_that_made_it(student, nnunet, tmp_path):
    """The record names the teacher, stored maps and a previous stage; dataset.json may name the files of cases."""
    model = shutil.copytree(student, tmp_path / "model")
    record = json.loads((model / "fold_0/distillation.json").read_text())
    record["previous_stage"] = str(nnunet / "results" / "stage" / "predicted_next_stage")
    record["teacher"]["networks"][0]["maps"] = "D:\\me\\maps_teacher_1"
    record["tap_table"].append(f"taught by {nnunet}/results/teacher")
    (model / "fold_0/distillation.json").write_text(json.dumps(record))
    dataset_json = json.loads((model / "dataset.json").read_text())
    dataset_json["dataset"] = {"case": {"images": [f"{nnunet}/raw/case_0000.nii.gz"]}}
    (model / "dataset.json").write_text(json.dumps(dataset_json))
    assert export(model, tmp_path / "out") == 0
    assert machine_paths(tmp_path / "out", [nnunet, tmp_path, Path("D:\\me")]) == []
    [file] = (tmp_path / "out").rglob("export.json")
    exported = json.loads(file.read_text())["records"]["0"]
    assert exported["previous_stage"] == "predicted_next_stage"
    assert exported["teacher"]["networks"][0]["maps"] == "maps_teacher_1"
    assert exported["tap_table"][-1] == "taught by teacher"


def test_a_model_of_stock_nnunet_is_exported_as_well(teacher_2d, tmp_path):
    model = tmp_path / "nnUNetTrainer__nnUNetPlans_short__2d"
    (model / "fold_0").mkdir(parents=True)
    for name in ("plans.json", "dataset.json"):
        shutil.copyfile(teacher_2d.parent / name, model / name)
    content = torch.load(teacher_2d / "checkpoint_final.pth", weights_only=False)
    del content["hlfd"]
    torch.save(content, model / "fold_0" / "checkpoint_final.pth")
    assert export(model, tmp_path / "out") == 0
    file = checkpoint(tmp_path / "out", "nnUNetTrainer__nnUNetPlans_shortHLFD__2d")
    assert "hlfd" not in torch.load(file, weights_only=True)


def test_what_cannot_be_exported_is_refused_with_what_to_do(student, tmp_path, capsys):
    def refused(message, *arguments):
        assert export(*arguments) == 2
        assert message in capsys.readouterr().err

    refused("Expected a model folder of nnU-Net", tmp_path, tmp_path / "out")
    refused("found none. Folds with checkpoint_final.pth (-f): 0.", student, tmp_path / "out", "-f", "3")
    refused("Name another file with -chk", student, tmp_path / "out", "-chk", "checkpoint_other.pth")
    assert not (tmp_path / "out").exists()
    assert export(student, tmp_path / "out") == 0
    refused("is there already. Remove it, or choose another folder with -o.", student, tmp_path / "out")


@pytest.mark.faults("hostile files")
def test_plans_without_a_reader_are_damaged(student, tmp_path, capsys):
    model = shutil.copytree(student, tmp_path / student.name)
    plans = json.loads((model / "plans.json").read_text())
    del plans["image_reader_writer"]
    (model / "plans.json").write_text(json.dumps(plans))
    assert export(model, tmp_path / "out") == 2
    assert "plans.json is damaged: KeyError: 'image_reader_writer'" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*/*"))


def test_weights_beyond_float16_are_refused_and_leave_nothing_behind(student, tmp_path, capsys):
    model = tmp_path / student.name
    shutil.copytree(student, model)
    file = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    name = next(iter(content["network_weights"]))
    content["network_weights"][name].flatten()[0] = 1e6
    torch.save(content, file)
    assert export(model, tmp_path / "out", "--half") == 2
    assert f"The weight {name} is too large for float16. Export without --half." in capsys.readouterr().err
    assert not [each for each in (tmp_path / "out").rglob("*") if each.is_file()]


@pytest.mark.parametrize(("where", "key"), [("checkpoint", "trainer_name"), ("plans", "dataset_name")])
def test_names_that_lead_elsewhere_are_refused(where, key, student, tmp_path, capsys):
    model = tmp_path / student.name
    shutil.copytree(student, model)
    if where == "plans":
        plans = json.loads((model / "plans.json").read_text())
        (model / "plans.json").write_text(json.dumps({**plans, key: "../elsewhere"}))
    else:
        file = model / "fold_0" / "checkpoint_final.pth"
        torch.save({**torch.load(file, weights_only=False), key: "../elsewhere"}, file)
    assert export(model, tmp_path / "out") == 2
    assert f"expected a folder's name as '{key}', got '../elsewhere'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
