"""`nnUNetv2_hlfd compress` on every kind of teacher: labels and regions, 2d and 3d, folds, channels, foreign networks.

The teachers are untrained: that their maps mean nothing does not matter to what is made of them.
"""

import csv
import json
import os
import shutil
import signal
from copy import deepcopy

import pytest
import SimpleITK
from commands_of_steps import CALIBRATION_PATCHES, main_killed, run_in_forks
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from phantom_data import DATASET, DATASETS
from plain_trainer import write_trainers
from processes import Process
from untrained_models import write_model

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.deploy import quantize
from nnunetv2_hlfd.teacher.stored import checks
from nnunetv2_hlfd.teacher.stored.folder import MapsFolder
from nnunetv2_hlfd.utilities import steps
from nnunetv2_hlfd.utilities.json_file import read_json

PACKAGE = '''
from torch import nn

class Net(nn.Module):
    """Its block of the plans tells no stages."""

    def __init__(self, input_channels, num_classes, dimension, width, deep_supervision):
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dimension]
        first, last = convolution(input_channels, width, 3, padding=1), convolution(width, num_classes, 1)
        self.layers = nn.Sequential(first, last)

    def forward(self, image):
        return self.layers(image)
'''


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Compress into a folder, with commands that start in no time."""
    monkeypatch.setattr(steps, "_run", run_in_forks)
    monkeypatch.setattr(quantize, "CALIBRATION_PATCHES", CALIBRATION_PATCHES)

    def compress(model, images, *more):
        folder = tmp_path / "work"
        options = ("-student", "resnet18_w8", "-steps", "2", "-device", "cpu", *more)
        assert main(["compress", "-m", str(model), "-i", str(images), "-o", str(folder), *options]) == 0
        return folder

    return compress


def described(nnunet, dataset):
    """nnU-Net's own plans and dataset.json."""
    folder = nnunet / "preprocessed" / dataset
    return read_json(folder / "nnUNetPlans.json"), read_json(folder / "dataset.json")


def images_of(nnunet, dataset, folder, channels=1):
    folder.mkdir()
    for file in (nnunet / "raw" / dataset / "imagesTr").glob("*_0000.nii.gz"):
        for channel in range(channels):
            shutil.copy(file, folder / file.name.replace("_0000", f"_{channel:04d}"))
    return folder


def student_of(folder, trainer="nnUNetTrainerSoftLabel"):
    [model] = folder.glob(f"results/*/{trainer}__*")
    return model, read_json(model / "plans.json"), read_json(model / "fold_0/distillation.json")


def held_out(folder):
    [file] = folder.glob("preprocessed/*/splits_final.json")
    return json.loads(file.read_text())[0]["val"]


def is_proved(folder):
    """Stock nnU-Net and predict.pyz have predicted the held-out images on the grid of their files."""
    [images] = folder.glob("raw/*/imagesTs")
    for case in held_out(folder):
        image = SimpleITK.ReadImage(str(images / f"{case}_0000.nii.gz"))
        for student in ("student", "student_small"):
            found = SimpleITK.ReadImage(str(folder / student / f"{case}.nii.gz"))
            assert found.GetSize() == image.GetSize()
    return (folder / "report.md").read_text().startswith("# ")


def with_two_channels(plans, dataset_json, configuration):
    dataset_json["channel_names"] = {"0": "CT", "1": "MRI"}
    properties = plans["foreground_intensity_properties_per_channel"]
    properties["1"] = properties["0"]
    plans["configurations"][configuration] |= {
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
        "use_mask_for_norm": [False, False],
    }


@pytest.fixture
def foreign_network(tmp_path, monkeypatch):
    """An `architecture` block that names a network of a package."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/networks_of_a_lab.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    return {
        "network_class_name": "networks_of_a_lab.Net",
        "arch_kwargs": {"dimension": 3, "width": 4},
        "_kw_requires_import": [],
    }


def test_maps_of_every_kind_of_teacher_lie_on_the_students_grid(nnunet, tmp_path, foreign_network, monkeypatch):
    """Regions, two channels, two folds, no mirroring, a foreign network and another spacing, up to the training."""
    dataset = DATASETS["regions"]
    plans, dataset_json = described(nnunet, dataset)
    with_two_channels(plans, dataset_json, "3d_fullres")
    plans["configurations"]["3d_fullres"]["architecture"] = foreign_network
    monkeypatch.setenv("nnUNet_hlfd_trust_imports", "networks_of_a_lab")
    model = write_model(tmp_path / "model", plans, dataset_json, "3d_fullres", folds=(0, 3), mirror_axes=None)
    shutil.copy(nnunet / "preprocessed" / dataset / "dataset_fingerprint.json", model)
    images = images_of(nnunet, dataset, tmp_path / "images", channels=2)
    folder = tmp_path / "work"
    arguments = ["compress", "-m", str(model), "-i", str(images), "-o", str(folder), "-spacing", "11", "-device", "cpu"]
    call = ([*arguments, "-student", "resnet18_w8"], "plan", float("inf"))
    with Process(main_killed, call, os.environ, tmp_path / "printed") as process:
        assert process.wait() == -signal.SIGKILL, process.stdout + process.stderr
    data = folder / "preprocessed" / dataset
    students = read_json(data / "nnUNetPlans_compress.json")
    assert students["hlfd"]["settings"]["mirroring"] == "none"
    assert students["configurations"]["3d_fullres"]["spacing"] == [11, 11, 11]
    [maps] = data.glob("*_teacher_*")
    found = MapsFolder.read(maps)
    assert found.description.regions
    assert len(found.description.networks) == 2
    arrays = nnUNetDatasetBlosc2(str(data / students["configurations"]["3d_fullres"]["data_identifier"]))
    for case, entry in found.cases.items():
        assert entry["shape"] == list(arrays.load_case(case)[0].shape[1:])
        assert max(entry["shape"]) < 48


@pytest.mark.slow
def test_two_folds_of_an_anisotropic_3d_teacher_without_mirroring_and_some_labels(nnunet, tmp_path, work):
    plans, dataset_json = described(nnunet, DATASET)
    model = write_model(tmp_path / "model", plans, dataset_json, "3d_fullres", folds=(0, 3), mirror_axes=None)
    labels = tmp_path / "labels"
    labels.mkdir()
    for number in (0, 1, 2):
        shutil.copy(nnunet / "raw" / DATASET / f"labelsTr/case_00{number}.nii.gz", labels)
    folder = work(model, images_of(nnunet, DATASET, tmp_path / "images"), "-l", str(labels), "--control")
    _, students, record = student_of(folder)
    assert students["hlfd"]["settings"]["mirroring"] == "none"
    assert len(record["teacher"]["networks"]) == 2
    assert is_proved(folder)
    text = (folder / "report.md").read_text()
    assert "## Against the truth" in text
    assert "against the truth it is " in text.splitlines()[0]
    assert "student on the label maps alone" in text
    rows = list(csv.DictReader((folder / "cases.csv").open()))
    assert {row["against"] for row in rows} == {"teacher", "truth"}
    assert set(held_out(folder)) <= {"case_000", "case_001", "case_002"}


@pytest.mark.slow
def test_regions_of_two_channels_by_a_trainer_from_elsewhere(nnunet, tmp_path, work, monkeypatch):
    dataset = DATASETS["regions"]
    plans, dataset_json = described(nnunet, dataset)
    with_two_channels(plans, dataset_json, "2d")
    trainers = write_trainers(tmp_path, monkeypatch)
    model = write_model(tmp_path / "model", plans, dataset_json, "2d", trainer=trainers.nnUNetTrainerListing)
    folder = work(model, images_of(nnunet, dataset, tmp_path / "images", channels=2))
    assert is_proved(folder)
    _, students, _ = student_of(folder)
    assert students["configurations"]["2d"]["architecture"]["network_class_name"].endswith("ResidualEncoderUNet")
    labels = list(read_json(folder / f"preprocessed/{dataset}/dataset.json")["labels"])[1:]
    text = (folder / "report.md").read_text()
    assert all(f"| {label} " in text for label in labels)


@pytest.mark.slow
def test_a_network_of_a_package_that_is_trusted_teaches_at_its_own_spacing(
    nnunet, tmp_path, work, foreign_network, monkeypatch, capsys
):
    plans, dataset_json = described(nnunet, DATASET)
    plans["configurations"]["3d_fullres"]["architecture"] = foreign_network
    model = write_model(tmp_path / "model", plans, dataset_json, "3d_fullres")
    images = images_of(nnunet, DATASET, tmp_path / "images")
    refused = ["compress", "-m", str(model), "-i", str(images), "-o", str(tmp_path / "work"), "-device", "cpu"]
    assert main(refused) == 2
    assert "nnUNet_hlfd_trust_imports=networks_of_a_lab" in capsys.readouterr().err
    monkeypatch.setenv("nnUNet_hlfd_trust_imports", "networks_of_a_lab")
    own = plans["configurations"]["3d_fullres"]["spacing"]
    folder = work(model, images, "-spacing", str(own[1] * 1.5))
    assert is_proved(folder)
    _, students, _ = student_of(folder)
    spacing = students["configurations"]["3d_fullres"]["spacing"]
    assert spacing == [max(own[0], own[1] * 1.5), own[1] * 1.5, own[2] * 1.5]
    [maps] = folder.glob("preprocessed/*/*_teacher_*/maps.json")
    assert all(max(case["shape"]) < 48 for case in json.loads(maps.read_text())["cases"].values())


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("-spacing", "12")], ids=["live", "labels"])
def test_a_teacher_whose_maps_would_fill_the_memory_teaches_otherwise(nnunet, tmp_path, work, monkeypatch, more):
    plans, dataset_json = described(nnunet, DATASET)
    model = write_model(tmp_path / "model", deepcopy(plans), dataset_json, "2d", folds=(0, 1))
    monkeypatch.setattr(checks, "LIMIT", 0)
    folder = work(model, images_of(nnunet, DATASET, tmp_path / "images"), *more)
    assert is_proved(folder)
    text = (folder / "report.md").read_text()
    assert not list(folder.glob("preprocessed/*/*_teacher_*"))
    if more:
        assert "**Warning:** The student learns from the teacher's label maps alone: 3 map channels" in text
        assert student_of(folder, "nnUNetTrainerStudent")
    else:
        assert "**Warning:** Fold 0 of the teacher teaches live and alone, in every 4th step" in text
        _, students, record = student_of(folder)
        assert students["hlfd"]["settings"]["teach_every"] == 4
        assert len(record["teacher"]["networks"]) == 1
