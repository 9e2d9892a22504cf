"""A model whose network has neither encoder nor decoder, by a trainer of the user's own: all that it can do."""

import csv
import shutil

import pytest
import SimpleITK
from helpers import stock
from plain_trainer import write_trainers

from nnunetv2_hlfd.cli.main import main

DATASET = "Dataset901_Phantom"
INSTALL = "nnunetv2.model_sharing.entry_points:install_from_zip_entry_point"
PREDICT = "nnunetv2.inference.predict_from_raw_data:predict_entry_point"


@pytest.fixture(scope="module")
def trainers(tmp_path_factory):
    """The folder of the user's trainers, named in nnUNet_extTrainer."""
    with pytest.MonkeyPatch.context() as patch:
        yield write_trainers(tmp_path_factory.mktemp("user"), patch).TRAINERS


@pytest.fixture(scope="module")
def model(trainers, teacher_2d, train):
    """Model folder of nnUNetTrainerPlain, trained and validated by nnU-Net."""
    return train("nnUNetTrainerPlain", plans="nnUNetPlans_short").parent


def labels(folder):
    return {file.name: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))) for file in folder.glob("*.nii.gz")}


def predict(model, nnunet, output, *more):
    arguments = ["-m", model, "-i", nnunet / "raw" / DATASET / "imagesTs", "-o", output, "-device", "cpu", *more]
    return main(["predict", *map(str, arguments)])


def assert_same(found, expected):
    assert found.keys() == expected.keys() != set()
    for name, array in expected.items():
        assert (found[name] == array).mean() > 0.998  # nnU-Net sums in float16


def test_it_predicts_and_its_zip_predicts_in_stock_nnunet(model, trainers, nnunet, tmp_path, capsys):
    assert predict(model, nnunet, tmp_path / "ours") == 0
    assert main(["export", "-m", str(model), "-o", str(tmp_path / "export")]) == 0
    assert "Prediction needs the trainer nnUNetTrainerPlain: no plans describe its network." in capsys.readouterr().out
    [archive] = (tmp_path / "export").glob("*.zip")
    results = tmp_path / "results"
    results.mkdir()
    variables = {"nnUNet_results": str(results), "nnUNet_extTrainer": str(trainers)}
    stock(INSTALL, archive, **variables)
    names = ["-d", "901", "-c", "2d", "-f", "0", "-p", "nnUNetPlans_shortHLFD", "-tr", "nnUNetTrainerPlain"]
    images = ["-i", nnunet / "raw" / DATASET / "imagesTs", "-o", tmp_path / "stock", "-device", "cpu"]
    stock(PREDICT, *names, *images, "-npp", "1", "-nps", "1", **variables)
    assert_same(labels(tmp_path / "ours"), labels(tmp_path / "stock"))


def test_it_is_exported_to_openvino(model, nnunet, tmp_path):
    assert main(["export", "-to", "openvino", "-m", str(model), "-o", str(tmp_path / "export")]) == 0
    [exported] = (tmp_path / "export" / DATASET).iterdir()
    renamed = exported.rename(tmp_path / "renamed")
    assert predict(renamed, nnunet, tmp_path / "exported", "-backend", "openvino") == 0
    assert predict(model, nnunet, tmp_path / "own") == 0
    assert_same(labels(tmp_path / "exported"), labels(tmp_path / "own"))


def test_it_is_reported_with_its_cost_and_without_maps(model, teacher_2d, tmp_path):
    arguments = ["-m", str(teacher_2d.parent), str(model), "-o", str(tmp_path), "--pictures"]
    assert main(["report", *arguments]) == 0
    with (tmp_path / "networks.csv").open() as opened:
        teacher, plain = csv.DictReader(opened)
    assert plain["missing"] == ""
    assert int(float(plain["parameters"])) == (1 * 4 * 9 + 4) + (4 * 3 * 9 + 3)
    assert int(float(plain["macs"])) == 48 * 48 * (1 * 4 * 9 + 4 * 3 * 9)
    assert float(plain["latency_seconds"]) > 0
    assert teacher["checkpoint"] == plain["checkpoint"] == "fold_0/checkpoint_final.pth"
    text = (tmp_path / "report.md").read_text()
    assert "no encoder that describes its stages: Plain (PlainNetwork)." in text
    with (tmp_path / "focus.csv").open() as opened:
        assert {row["arm"] for row in csv.DictReader(opened)} == {"teacher"}
    assert (tmp_path / "overlay_worst.png").is_file()


def test_a_report_of_such_models_alone_has_no_maps_at_all(model, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    assert main(["report", "-m", str(model), str(other), "-o", str(tmp_path / "out"), "--pictures"]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "its stages: teacher (PlainNetwork), Plain (PlainNetwork)." in text
    assert (tmp_path / "out" / "overlay_worst.png").is_file()
    assert not list((tmp_path / "out").glob("layers_*.png"))
