"""`nnUNetv2_hlfd compress` on a teacher whose data set is gone, from the images to the report."""

import json
import re
import shutil
import zipfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from commands_of_steps import run_in_forks
from phantom_data import DATASET

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.deploy import quantize
from nnunetv2_hlfd.teacher.stored.folder import MapsFolder
from nnunetv2_hlfd.utilities import steps

TRAINED = "nnUNetTrainerSoftLabel__nnUNetPlans_short_compress__2d"
EXPORTED = "nnUNetTrainer__nnUNetPlans_short_compressHLFD__2d"
SHORT = ("-student", "resnet18_w8", "-steps", "2", "-device", "cpu")


@pytest.fixture(scope="module")
def images(nnunet, tmp_path_factory):
    """All images of the phantom, as a stranger has them."""
    folder = tmp_path_factory.mktemp("images")
    for part in ("imagesTr", "imagesTs"):
        for file in (nnunet / "raw" / DATASET / part).iterdir():
            shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def teacher(teacher_2d, tmp_path_factory):
    """The 2d teacher's model folder, moved away from its data and renamed."""
    return shutil.copytree(teacher_2d.parent, tmp_path_factory.mktemp("download") / "model")


def compress(teacher, images, folder, *more):
    return main(["compress", "-m", str(teacher), "-i", str(images), "-o", str(folder), *SHORT, *more])


@pytest.fixture(scope="module")
def compressed(teacher, images, tmp_path_factory):
    """A finished compression's folder, and what it printed."""
    folder = tmp_path_factory.mktemp("compressed") / "work"
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.setattr(steps, "_run", run_in_forks)
        patch.setattr(quantize, "CALIBRATION_PATCHES", 4)
        patch.setenv("nnUNet_raw", "/nowhere")
        assert compress(teacher, images, folder) == 0
    return folder, printed.getvalue()


def test_a_teacher_and_images_become_a_student_with_its_proof(compressed, nnunet):
    folder, printed = compressed
    verdict = (folder / "report.md").read_text().splitlines()[0]
    assert re.match(
        r"# The student agrees with its teacher at Dice [\d.]+ \[[\d., ]+\] on 2 held-out images; it is "
        r"[\d.]+ x smaller and [\d.]+ x faster, [\d.]+ x with predict.pyz$",
        verdict,
    )
    assert verdict in printed
    [split] = json.loads((folder / "preprocessed" / DATASET / "splits_final.json").read_text())
    assert len(split["train"]) == 5
    assert len(split["val"]) == 2
    for name in ("student", "student_small"):
        assert sorted(file.name for file in (folder / name).glob("*.nii.gz")) == [
            f"{case}.nii.gz" for case in split["val"]
        ]
    archive = folder / "export" / f"{DATASET}_{EXPORTED}.zip"
    assert zipfile.is_zipfile(archive)
    assert not any((nnunet / "results" / DATASET).glob("*compress*"))


def test_the_student_learned_from_the_maps_of_the_teachers_one_pass(compressed, teacher):
    folder, _ = compressed
    record = json.loads((folder / f"results/{DATASET}/{TRAINED}/fold_0/distillation.json").read_text())
    [network] = record["teacher"]["networks"]
    assert network["folder"] == str(teacher)
    maps = MapsFolder.read(Path(network["maps"]))
    [split] = json.loads((folder / "preprocessed" / DATASET / "splits_final.json").read_text())
    assert sorted(maps.cases) == split["train"]
    assert not (folder / "maps").exists()


def test_the_same_command_again_does_nothing(compressed, teacher, images, capsys):
    folder, _ = compressed
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.name != "compress.json"}
    assert compress(teacher, images, folder) == 0
    assert capsys.readouterr().out.count("done before") == 13
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_folder_made_from_other_images_or_choices_is_refused(compressed, teacher, images, tmp_path, capsys):
    folder, _ = compressed
    more = shutil.copytree(images, tmp_path / "more")
    shutil.copy(more / "case_000_0000.nii.gz", more / "another_0000.nii.gz")
    assert compress(teacher, more, folder) == 2
    assert "was made from other images (1 more, 0 fewer" in capsys.readouterr().err
    assert compress(teacher, images, folder, "-seed", "7") == 2
    assert "{'seed': 0} there, {'seed': 7} here" in capsys.readouterr().err
