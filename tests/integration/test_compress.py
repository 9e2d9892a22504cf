"""`nnUNetv2_hlfd compress` on a teacher whose data set is gone, from the images to the report."""

import json
import os
import re
import shutil
import signal
import subprocess
import zipfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import SimpleITK
import torch
from commands_of_steps import CALIBRATION_PATCHES, main_killed, run_in_forks
from phantom_data import DATASET
from processes import Process

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.compress.command import compress_steps
from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.deploy import quantize
from nnunetv2_hlfd.teacher.stored.folder import MapsFolder
from nnunetv2_hlfd.utilities import steps

TRAINED = "nnUNetTrainerSoftLabel__nnUNetPlans_short_compress__2d"
EXPORTED = "nnUNetTrainer__nnUNetPlans_short_compressHLFD__2d"
# what 8 bits cost a student of 2 steps differs from machine to machine
SHORT = ("-student", "resnet18_w8", "-steps", "2", "-device", "cpu", "-max_dice_drop", "1")


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


def arguments(teacher, images, folder, *more):
    return ["compress", "-m", str(teacher), "-i", str(images), "-o", str(folder), *SHORT, *more]


def compress(teacher, images, folder, *more):
    return main(arguments(teacher, images, folder, *more))


@pytest.fixture(scope="module")
def compressed(teacher, images, tmp_path_factory):
    """A finished compression's folder, and what it printed."""
    folder = tmp_path_factory.mktemp("compressed") / "work"
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.setattr(steps, "_run", run_in_forks)
        patch.setattr(quantize, "CALIBRATION_PATCHES", CALIBRATION_PATCHES)
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
    assert (folder / "agreement.png").stat().st_size > 10_000
    assert "mm, in patches of" in (folder / "report.md").read_text()
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


def test_the_exports_have_model_cards_with_what_was_measured(compressed, tmp_path):
    folder, _ = compressed
    student, small = (
        next((folder / name).glob("Dataset*/nnUNetTrainer*/README.md")) for name in ("export", "export_openvino")
    )
    assert (folder / "README.md").read_text() == student.read_text()
    for card in (student, small):
        text = card.read_text()
        assert re.search(r"Agreement with the teacher +\| Dice [\d.]+ \[[\d., ]+\] on 2 held-out images", text)
        assert re.search(r"Seconds per image +\| [\d.e-]+ ", text)
        assert re.search(r"Main memory at most +\| [\d.]+ GiB", text)
        assert "LPS (7)" in text
        assert not re.search(r"validation of fold 0 +\| [\d.]+ on", text)  # its labels were the teacher's
        assert str(folder) not in text
        subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=card.parent, check=True)
    assert re.search(r"Cost of 8 bits, fold 0 +\| Dice [\d.]+ in float32, [\d.]+ in 8 bits", small.read_text())
    with zipfile.ZipFile(folder / "export" / f"{DATASET}_{EXPORTED}.zip") as archive:
        assert archive.read(f"{DATASET}/{EXPORTED}/README.md").decode() == student.read_text()


def test_the_same_command_again_does_nothing(compressed, teacher, images, capsys):
    folder, _ = compressed
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.name != "compress.json"}
    assert compress(teacher, images, folder) == 0
    assert capsys.readouterr().out.count("done before") == 14
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_folder_made_from_other_images_or_choices_is_refused(compressed, teacher, images, tmp_path, capsys):
    folder, _ = compressed
    more = shutil.copytree(images, tmp_path / "more")
    shutil.copy(more / "case_000_0000.nii.gz", more / "another_0000.nii.gz")
    assert compress(teacher, more, folder) == 2
    assert "was made from other images (1 more, 0 fewer" in capsys.readouterr().err
    assert compress(teacher, images, folder, "-seed", "7") == 2
    assert "{'seed': 0} there, {'seed': 7} here" in capsys.readouterr().err


# Killed at any moment, it goes on


def kill(folder, *call):
    """Start the command, and let it be killed in a step."""
    with Process(main_killed, call, os.environ, folder) as process:
        assert process.wait() == -signal.SIGKILL, process.stdout + process.stderr


def label_maps(folder):
    return {
        file.name: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))).tobytes()
        for file in folder.glob("*.nii.gz")
    }


@pytest.mark.faults("killed processes")
def test_killed_in_the_teachers_pass_it_goes_on_with_the_next_image(teacher, images, tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "work"
    kill(tmp_path / "printed", arguments(teacher, images, whole), "teacher", float("inf"))
    kill(tmp_path / "printed", arguments(teacher, images, folder), "teacher", 0, "*.b2nd")
    maps = {file: file.stat().st_mtime_ns for file in (folder / "maps").glob("*.b2nd")}
    done = {file: time for file, time in maps.items() if (folder / "teacher" / f"{file.stem}.nii.gz").exists()}
    assert len(maps) == 1
    [step, *_] = compress_steps(CompressOptions(model=teacher, images=images, output=folder, device="cpu"))
    step.command()
    assert label_maps(folder / "teacher") == label_maps(whole / "teacher")
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert len(list((folder / "maps").glob("*.b2nd"))) == 7


@pytest.mark.faults("killed processes")
@pytest.mark.slow
def test_killed_in_every_step_it_comes_to_the_same_result(
    compressed, teacher, images, tmp_path, monkeypatch, record_property
):
    whole, _ = compressed
    folder = tmp_path / "work"
    again = arguments(teacher, images, folder)
    names = [*json.loads((whole / "compress.json").read_text())["seconds"]]
    assert len(names) == 14
    for name in names:
        for moment in (0.5, float("inf")):
            kill(tmp_path / f"{name}_{moment}", again, name, moment)
    monkeypatch.setattr(steps, "_run", run_in_forks)
    monkeypatch.setattr(quantize, "CALIBRATION_PATCHES", CALIBRATION_PATCHES)
    assert main(again) == 0
    for part in ("teacher", "student", "student_small"):
        assert label_maps(folder / part) == label_maps(whole / part)
    for file in ("cases.csv", "failed.csv"):
        assert (folder / file).read_text() == (whole / file).read_text()
    record_property("tried", {"killed processes": [2 * len(names)] * 2})


# What is refused, or said, before anything is written


def few(images, folder, number=7):
    """Some of the images."""
    folder.mkdir()
    for file in sorted(images.iterdir())[:number]:
        shutil.copy(file, folder)
    return folder


def refused(teacher, images, folder, capsys, *more):
    assert compress(teacher, images, folder, *more) == 2
    assert not folder.exists()
    return capsys.readouterr().err


def test_the_dry_run_says_how_long_it_takes_and_writes_nothing(teacher, images, tmp_path, capsys):
    assert compress(teacher, images, tmp_path / "work", "--dry_run") == 0
    printed = capsys.readouterr().out
    assert "7 images, 0 with labels: 5 to learn from, 2 held out" in printed
    assert re.search(r"Teacher, 7 images: about [\d.]+ s\. Training resnet18_w8, 2 steps: about [\d.]+ ", printed)
    assert "7 images are few" in printed
    assert printed.endswith("Dry run: nothing was trained or written.\n")
    assert "perform_everything_on_device" not in printed
    assert list(tmp_path.iterdir()) == []


def test_the_python_api_does_what_its_page_says(teacher, images, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs/reference/python-api.md").read_text()
    [example] = re.findall(r"^## Compress a model.*?^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(example.replace("MODEL_FOLDER", str(teacher)).replace("IMAGES", str(images)), found)
    assert found["left_out"] == 0
    assert "7 images, 0 with labels" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_too_few_images_are_refused(teacher, images, tmp_path, capsys):
    folder = few(images, tmp_path / "few", 5)
    (folder / "case_000_0000.nii.gz").write_bytes(b"no image")
    message = refused(teacher, folder, tmp_path / "work", capsys)
    assert (
        f"Expected at least 5 images to learn from and compare on, got 4 in {folder} (1 more cannot be used" in message
    )


def test_images_of_another_ending_are_named(teacher, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/case_000_0000.nrrd").touch()
    message = refused(teacher, tmp_path / "images", tmp_path / "work", capsys)
    assert "Expected files CASE_0000.nii.gz" in message
    assert "found *.nrrd" in message


def test_images_with_more_channels_are_refused_with_the_channels_names(teacher, images, tmp_path, capsys):
    folder = few(images, tmp_path / "two")
    for file in list(folder.iterdir()):
        shutil.copy(file, folder / file.name.replace("_0000", "_0001"))
    message = refused(teacher, folder, tmp_path / "work", capsys)
    assert (
        "The teacher expects 1 channels per case (0: CT). case_000: expected 1 channels, got 2: case_000_0000"
        in message
    )


def test_labels_that_do_not_fit_are_refused(teacher, images, nnunet, tmp_path, capsys):
    labels = tmp_path / "labels"
    labels.mkdir()
    assert "found none" in refused(teacher, images, tmp_path / "work", capsys, "-l", str(labels))
    label = SimpleITK.ReadImage(str(nnunet / "raw" / DATASET / "labelsTr/case_001.nii.gz"))
    SimpleITK.WriteImage(label[:, :, :4], str(labels / "case_001.nii.gz"))
    assert "has the shape [4, 48, 48], its image [8, 48, 48]" in refused(
        teacher, images, tmp_path / "work", capsys, "-l", str(labels)
    )
    SimpleITK.WriteImage(label + 5, str(labels / "case_001.nii.gz"))
    assert "the teacher's labels are [0, 1, 2]" in refused(
        teacher, images, tmp_path / "work", capsys, "-l", str(labels)
    )


def test_a_cascades_second_stage_is_refused(teacher, images, tmp_path, capsys):
    cascade = shutil.copytree(teacher, tmp_path / "model")
    file = next(cascade.glob("fold_*/checkpoint_final.pth"))
    content = torch.load(file, weights_only=False)
    content["init_args"]["configuration"] = "3d_cascade_fullres"
    torch.save(content, file)
    message = refused(cascade, images, tmp_path / "work", capsys)
    assert "takes the segmentation of 3d_lowres as input and cannot be compressed alone" in message
