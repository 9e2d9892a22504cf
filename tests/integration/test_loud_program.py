"""What predict.pyz says where a hospital needs it: nothing is left out, odd or refused in silence."""

import json
import shutil
import sys

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from color_model import by_itk, in_files, make_scene, rename_reader, write_model
from dicom_series import write_series
from predictions import exported_folder, run_program

from nnunetv2_hlfd.cli.main import main

SPACING, ORIGIN, DIRECTION = (0.8, 0.9, 2.5), (-30.5, 12.25, 7), (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)
WRITE = in_files(by_itk(Spacing=SPACING, Origin=ORIGIN, Direction=DIRECTION), ".nii.gz")
SCENE = make_scene((3, 2, 56, 72)[1:], seed=2)[0]


@pytest.fixture(scope="module")
def exported(nnunet, tmp_path_factory):
    """A model of three channels in files of their own, which knows how its training images were."""
    plans = json.loads((nnunet / "preprocessed/Dataset901_Phantom/nnUNetPlans.json").read_text())
    model = write_model(tmp_path_factory.mktemp("model") / "Dataset910_Colors", plans)
    rename_reader(model, "SimpleITKIO", ".nii.gz")
    spacings = [[2.5, 0.9, 0.8], [2.0, 1.0, 1.0]]
    (model / "dataset_fingerprint.json").write_text(json.dumps({"spacings": spacings}))
    raw = tmp_path_factory.mktemp("raw")
    (raw / "Dataset910_Colors/imagesTr").mkdir(parents=True)
    WRITE(SCENE, raw / "Dataset910_Colors/imagesTr", "a")
    output = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_raw", str(raw))
        assert main(["export", "-m", str(model), "-o", str(output), "-to", "onnx"]) == 0
    return exported_folder(output)


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def lines(text):
    return [line.split("] ", 1)[-1] for line in text.splitlines()]


def test_images_like_the_training_are_predicted_without_a_word(exported, images, tmp_path, capfd):
    WRITE(SCENE, images, "good")
    assert run_program(exported, images, tmp_path / "out") == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    assert len(printed.out.splitlines()) == 1


def test_a_folder_of_images_with_other_names_is_refused_with_some_of_them(exported, images, tmp_path, capsys):
    for name in "abcd":
        (images / f"{name}.nii.gz").touch()
    assert run_program(exported, images, tmp_path / "out") == 2
    assert "or folders with DICOM series, found only a.nii.gz, b.nii.gz, c.nii.gz." in capsys.readouterr().err


def test_what_is_not_predicted_is_named_and_counted(exported, images, tmp_path, capsys):
    for case in ("good", "missing", "gap", "grid"):
        WRITE(SCENE, images, case)
    (images / "missing_0002.nii.gz").unlink()
    (images / "gap_0002.nii.gz").rename(images / "gap_0003.nii.gz")
    WRITE(SCENE[:, :, :50], tmp_path, "other")
    shutil.copy(tmp_path / "other_0001.nii.gz", images / "grid_0001.nii.gz")
    for name in ("good.nii.gz", "good_000.nii.gz", "other_0000.nii", "photo.PNG", "notes.txt", ".hidden_0000.nii"):
        (images / name).touch()
    (images / "below").mkdir()
    (images / "below/deep_0000.nii.gz").touch()
    assert run_program(exported, images, images / "out") == 1
    found = lines(capsys.readouterr().err)
    assert found[:5] == [
        f"WARNING: {name} matches no case CASE_0000.nii.gz"
        for name in ("below/deep_0000.nii.gz", "good.nii.gz", "good_000.nii.gz", "other_0000.nii", "photo.PNG")
    ]
    assert found[5] == "gap FAILED: expected channels from _0000 on without gaps, got _0000, _0001, _0003"
    assert found[6].startswith("grid FAILED: grid_0001.nii.gz has another shape or spacing than grid_0000.nii.gz")
    assert found[7] == "missing FAILED: expected 3 channels, got 2: missing_0000.nii.gz, missing_0001.nii.gz"
    assert found[8:] == [
        "3 of 4 cases failed: gap, grid, missing",
        "5 images match no case and were not predicted",
    ]
    assert [file.name for file in (images / "out").iterdir()] == ["good.nii.gz"]


def test_what_is_predicted_but_odd_is_named_and_counted(exported, images, tmp_path, capsys):
    WRITE(SCENE, images, "good")
    in_files(by_itk(Spacing=(0.8, 0.9, 9), Origin=ORIGIN, Direction=DIRECTION), ".nii.gz")(SCENE, images, "coarse")
    in_files(by_itk(Spacing=SPACING, Direction=(0, 0, 1, 1, 0, 0, 0, 1, 0)), ".nii.gz")(SCENE, images, "turned")
    WRITE(SCENE, images, "elsewhere")
    by_itk(Spacing=SPACING, Origin=(0, 0, 0), Direction=DIRECTION)(
        SCENE[1].astype(np.int16), images / "elsewhere_0001.nii.gz"
    )
    assert run_program(exported, images, tmp_path / "out") == 3
    assert lines(capsys.readouterr().err) == [
        "coarse WARNING: the spacing is 9 x 0.9 x 0.8 mm (z, y, x), that of the training images 2 x 0.9 x 0.8 to "
        "2.5 x 1 x 1",
        "elsewhere WARNING: elsewhere_0001.nii.gz has another origin or direction than elsewhere_0000.nii.gz",
        "turned WARNING: the voxel axes point to PSL, those of the training images to LPS",
        "3 of 4 cases have warnings: coarse, elsewhere, turned",
    ]
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_an_image_in_which_nothing_is_found_is_said_to_be_so(exported, images, tmp_path, capsys):
    WRITE(np.full_like(SCENE, 120) + np.random.default_rng(0).integers(0, 3, SCENE.shape, np.uint8), images, "noise")
    run_program(exported, images, tmp_path / "out")
    found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "out/noise.nii.gz"))).any()
    assert capsys.readouterr().out.rstrip().endswith("nothing found") != found


def test_dicom_series_are_segmented_as_the_same_volumes_in_files(exported, images, tmp_path, capsys):
    WRITE(SCENE, images, "patient")
    for number, channel in enumerate(SCENE):
        folder = tmp_path / f"series/patient_{number:04d}"
        write_series(
            folder, channel.astype(np.int16), spacing=SPACING, origin=ORIGIN, direction=DIRECTION, number=number
        )
    assert run_program(exported, images, tmp_path / "a") == 0
    assert run_program(exported, tmp_path / "series", tmp_path / "b", "--dicom_seg") == 0
    assert capsys.readouterr().err == ""
    one, two = (SimpleITK.ReadImage(str(tmp_path / name / "patient.nii.gz")) for name in "ab")
    labels = SimpleITK.GetArrayFromImage(two)
    assert set(np.unique(labels)) == {0, 1, 2}
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(one), labels)
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(one, what)(), getattr(two, what)(), atol=1e-5)

    written = highdicom.seg.segread(tmp_path / "b/patient.seg.dcm")
    names = [written.get_segment_description(number).segment_label for number in written.segment_numbers]
    assert names == ["bright", "dark"]
    assert written.PatientName == "Phantom^A"
    slices = sorted(
        (pydicom.dcmread(file) for file in (tmp_path / "series/patient_0000").iterdir()),
        key=lambda header: header.ImagePositionPatient[2],  # as the volume has them
    )
    found = written.get_pixels_by_source_instance([header.SOPInstanceUID for header in slices])
    np.testing.assert_array_equal(found, np.stack([labels == 1, labels == 2], axis=-1))


def test_dicom_that_cannot_be_used_is_refused(exported, images, tmp_path, capsys, monkeypatch):
    WRITE(SCENE, images, "patient")
    assert run_program(exported, images, tmp_path / "out", "--dicom_seg") == 2
    assert "--dicom_seg is for DICOM series; these are files: patient." in capsys.readouterr().err
    for number, channel in enumerate(SCENE):
        write_series(images / f"patient_{number:04d}", channel.astype(np.int16), number=number)
    assert run_program(exported, images, tmp_path / "out") == 2
    assert "Expected one image for each channel, got two for patient_0000" in capsys.readouterr().err
    for file in images.glob("*.nii.gz"):
        file.unlink()
    monkeypatch.setitem(sys.modules, "highdicom", None)
    assert run_program(exported, images, tmp_path / "out", "--dicom_seg") == 2
    assert "pip install highdicom" in capsys.readouterr().err
    shutil.rmtree(images / "patient_0001")
    assert run_program(exported, images, tmp_path / "out") == 1
    assert "patient FAILED: expected channels from _0000 on" in capsys.readouterr().err


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_images_is_refused(exported, images, tmp_path, there, capsys):
    assert run_program(exported, images if there else tmp_path / "nowhere", tmp_path / "out") == 2
    assert capsys.readouterr().err.startswith("Expected ")
