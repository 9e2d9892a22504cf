"""KiTS19 and LiTS to nnU-Net's raw format: what is written, what is skipped and said, what is never touched."""

import gzip
import json
import os
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from downloads import (
    SHAPE,
    SPACING,
    kits19_affine,
    lits_affine,
    save,
    scene,
    write_decathlon,
    write_kits19,
    write_lits,
)
from faults import run_on_disk

from nnunetv2_hlfd.cli.main import main, make_parser
from nnunetv2_hlfd.datasets import conversion
from nnunetv2_hlfd.datasets.challenges import CHALLENGES
from nnunetv2_hlfd.datasets.conversion import convert, dataset_name
from nnunetv2_hlfd.datasets.splits import write_splits

KITS19, LITS = CHALLENGES["kits19"], CHALLENGES["lits"]


@pytest.fixture(autouse=True)
def raw(tmp_path, monkeypatch):
    """nnU-Net's folders of the test's own."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return tmp_path / "raw"


@pytest.fixture
def kits19(tmp_path):
    return write_kits19(tmp_path / "kits19", cases=[0, 1, 2, 3], unlabelled=[210])


def rows(folder):
    return {row["case"]: row for row in json.loads((folder / "conversion_report.json").read_text())["cases"]}


def states(folder):
    return {case: row["state"] for case, row in rows(folder).items()}


def files(folder):
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


# What is written


def test_kits19_keeps_its_axes_and_what_its_files_say_about_geometry(kits19, raw):
    """Read by another library: each voxel is where it was in the patient, in image and label."""
    convert(KITS19, kits19)
    folder = raw / "Dataset019_KiTS19"
    image = nibabel.load(folder / "imagesTr/case_00001_0000.nii.gz")
    label = nibabel.load(folder / "labelsTr/case_00001.nii.gz")
    hu, labels = scene(1)
    assert image.shape == label.shape == SHAPE
    np.testing.assert_array_equal(image.get_fdata(), hu)
    np.testing.assert_array_equal(label.get_fdata(), labels)
    for each in (image, label):
        np.testing.assert_allclose(each.affine, kits19_affine(), atol=1e-6)
    assert image.get_data_dtype() == np.int16
    assert label.get_data_dtype() == np.uint8


def test_the_folder_itself_may_be_kits19s_data_folder(kits19, raw):
    assert convert(KITS19, kits19 / "data").names("converted") == [f"case_0000{i}" for i in range(4)]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_lits_is_read_from_its_batches(tmp_path, raw, ending):
    source = write_lits(tmp_path / "lits", cases=[0, 7, 12], unlabelled=[0], ending=ending)
    folder = convert(LITS, source).folder
    assert folder == raw / "Dataset017_LiTS"
    assert states(folder) == {
        "liver_000": "converted",
        "liver_007": "converted",
        "liver_012": "converted",
        "test_000": "unlabelled",
    }
    image = nibabel.load(folder / "imagesTr/liver_007_0000.nii.gz")
    hu, labels = scene(7)
    np.testing.assert_array_equal(image.get_fdata(), hu.T)
    np.testing.assert_array_equal(nibabel.load(folder / "labelsTr/liver_007.nii.gz").get_fdata(), labels.T)
    np.testing.assert_allclose(image.affine, lits_affine(), rtol=1e-6)


def test_images_and_labels_of_lits_may_lie_in_different_folders(tmp_path):
    source = write_lits(tmp_path / "lits", cases=[3, 4])
    (source / "segmentations").mkdir()
    for file in source.glob("Training*/segmentation-*"):
        file.rename(source / "segmentations" / file.name)
    assert convert(LITS, source).names("converted") == ["liver_003", "liver_004"]


def test_the_decathlons_liver_task_gives_the_same_data_set(tmp_path, raw):
    """Its labels are stored as floating point numbers, its test images have none."""
    lits = convert(LITS, write_lits(tmp_path / "lits", cases=[0, 7])).folder
    task = convert(LITS, write_decathlon(tmp_path / "Task03_Liver", cases=[0, 7], unlabelled=[131]), "18").folder
    assert states(task) == {"liver_000": "converted", "liver_007": "converted", "liver_131": "unlabelled"}
    assert task.name == "Dataset018_LiTS"
    for file in ("imagesTr/liver_007_0000.nii.gz", "labelsTr/liver_007.nii.gz"):
        one, other = (SimpleITK.ReadImage(str(folder / file)) for folder in (lits, task))
        assert np.array_equal(*(SimpleITK.GetArrayFromImage(each) for each in (one, other)))
        assert one.GetPixelID() == other.GetPixelID()


@pytest.mark.parametrize(
    ("regions", "labels", "order"),
    [
        (False, {"background": 0, "kidney": 1, "tumor": 2}, None),
        (True, {"background": 0, "kidney": [1, 2], "tumor": 2}, [1, 2]),
    ],
)
def test_dataset_json_has_labels_or_regions(kits19, regions, labels, order):
    folder = convert(KITS19, kits19, regions=regions).folder
    content = json.loads((folder / "dataset.json").read_text())
    assert content["labels"] == labels
    assert content.get("regions_class_order") == order
    assert content["channel_names"] == {"0": "CT"}
    assert content["numTraining"] == 4
    assert content["file_ending"] == ".nii.gz"


def test_nothing_but_the_data_set_and_its_report_is_left(kits19):
    folder = convert(KITS19, kits19).folder
    cases = [f"case_0000{i}" for i in range(4)]
    assert files(folder) == {
        "dataset.json",
        "conversion_report.json",
        *(f"imagesTr/{case}_0000.nii.gz" for case in cases),
        *(f"labelsTr/{case}.nii.gz" for case in cases),
    }


def test_files_whose_data_are_whole_are_converted_however_they_are_compressed(kits19, raw):
    image, label = (kits19 / "data/case_00001" / name for name in ("imaging.nii.gz", "segmentation.nii.gz"))
    image.write_bytes(gzip.decompress(image.read_bytes()))
    label.write_bytes(label.read_bytes() + b"bytes of somebody else")
    convert(KITS19, kits19)
    folder = raw / "Dataset019_KiTS19"
    hu, labels = scene(1)
    np.testing.assert_array_equal(nibabel.load(folder / "imagesTr/case_00001_0000.nii.gz").get_fdata(), hu)
    np.testing.assert_array_equal(nibabel.load(folder / "labelsTr/case_00001.nii.gz").get_fdata(), labels)


# What is skipped


def damage(case, kits19):  # noqa: C901
    """One of the things that happen to downloads."""
    data, image, label = kits19 / "data", "case_00001/imaging.nii.gz", "case_00001/segmentation.nii.gz"
    hu, labels = scene(1)
    affine = kits19_affine()
    match case:
        case "truncated image":
            (data / image).write_bytes((data / image).read_bytes()[:-2000])
        case "truncated before it was compressed":
            (data / image).write_bytes(gzip.compress(gzip.decompress((data / image).read_bytes())[:-2000]))
        case "a bit of the label flipped":
            content = bytearray((data / label).read_bytes())
            content[len(content) // 2] ^= 255
            (data / label).write_bytes(content)
        case "empty file":
            (data / image).write_bytes(b"")
        case "no NIfTI":
            (data / image).write_bytes(gzip.compress(b"<html>Not found</html>" * 40))
        case "no image":
            (data / image).unlink()
        case "other shape":
            save(labels[:-1], affine, data / label)
        case "other spacing":
            save(labels, kits19_affine((5.0, 0.8, 0.75)), data / label)
        case "other origin":
            affine[0, 3] = 3
            save(labels, affine, data / label)
        case "flipped":
            affine[2] = [SPACING[0], 0, 0, -SPACING[0] * (SHAPE[0] - 1)]
            save(labels, affine, data / label)
        case "unexpected label":
            labels[0, 0, :2] = 3, 4
            save(labels, affine, data / label)
        case "fraction as label":
            save(labels * np.float32(0.5), affine, data / label)
        case "NaN as label":
            labels = labels.astype(np.float32)
            labels[0, 0, 0] = np.nan
            save(labels, affine, data / label)
        case "empty label":
            save(0 * labels, affine, data / label)
        case "NaN in the image":
            hu[0, 0, 0] = np.nan
            save(hu, affine, data / image)
        case "no HU":
            save(hu * 100, affine, data / image)
        case "four dimensions":
            save(np.stack([hu, hu], -1), affine, data / image)


REASONS = {
    "truncated image": "imaging.nii.gz cannot be read: Compressed file ended",
    "truncated before it was compressed": "imaging.nii.gz cannot be read: truncated, 500 voxels are missing",
    "a bit of the label flipped": "segmentation.nii.gz cannot be read",
    "empty file": "imaging.nii.gz cannot be read",
    "no NIfTI": "imaging.nii.gz cannot be read",
    "no image": "no image",
    "other shape": "the image has (6, 20, 24) voxels, the label (5, 20, 24)",
    "other spacing": "spacing (5, 0.75, 0.75) and (5, 0.8, 0.75)",
    "other origin": "image and label lie 4 voxels apart: origin (0, 0, 0) and (-3, 0, 0)",
    "flipped": "origin (0, 0, 0) and (0, 0, -25); direction",
    "unexpected label": "the label has unexpected values 3, 4; expected are 0, 1, 2",
    "fraction as label": "the label has unexpected values 0.5; expected are 0, 1, 2",
    "NaN as label": "segmentation.nii.gz cannot be read: it has values that are no numbers",
    "empty label": "the label is empty",
    "NaN in the image": "imaging.nii.gz cannot be read: it has values that are no numbers",
    "no HU": "no Hounsfield units, or damaged",
    "four dimensions": "imaging.nii.gz: expected one number for each voxel of 3 dimensions",
}


@pytest.mark.parametrize("case", REASONS)
def test_a_bad_case_is_skipped_by_name_with_its_reason_and_the_others_are_converted(case, kits19, capsys):
    damage(case, kits19)
    assert main(["convert", "kits19", str(kits19)]) == 1
    folder = Path(os.environ["nnUNet_raw"]) / "Dataset019_KiTS19"
    good = ["case_00000", "case_00002", "case_00003"]
    assert states(folder) == {**dict.fromkeys(good, "converted"), "case_00001": "skipped", "case_00210": "unlabelled"}
    assert REASONS[case] in rows(folder)["case_00001"]["reason"]
    printed = capsys.readouterr().out
    assert f"Skipped case_00001: {rows(folder)['case_00001']['reason']}\n" in printed
    assert "Skipped, as they have no label: case_00210\n" in printed
    assert "3 cases in" in printed
    assert {file for file in files(folder) if "case_00001" in file} == set()
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 3


def test_unlabelled_cases_alone_are_no_failure(kits19, capsys):
    assert main(["convert", "kits19", str(kits19)]) == 0
    assert "4 cases in" in capsys.readouterr().out


def test_noise_of_the_header_is_repaired_by_the_images_geometry_and_reported(kits19, raw, capsys):
    affine = kits19_affine((5.0, 0.75 + 1e-5, 0.75))
    affine[0, 3] = 1e-3
    save(scene(1)[1], affine, kits19 / "data/case_00001/segmentation.nii.gz")
    assert main(["convert", "kits19", str(kits19)]) == 0
    folder = raw / "Dataset019_KiTS19"
    assert states(folder)["case_00001"] == "repaired"
    assert rows(folder)["case_00001"]["reason"] == "spacing, origin of the label's header, 0.001 voxels"
    assert "Labels that got their image's geometry (header noise): case_00001\n" in capsys.readouterr().out
    image, label = (
        SimpleITK.ReadImage(str(folder / file))
        for file in ("imagesTr/case_00001_0000.nii.gz", "labelsTr/case_00001.nii.gz")
    )
    assert (image.GetSpacing(), image.GetOrigin()) == (label.GetSpacing(), label.GetOrigin())


def test_two_files_for_one_scan_of_lits_are_not_chosen_between(tmp_path):
    source = write_lits(tmp_path / "lits", cases=[0, 1])
    (source / "copy").mkdir()
    shutil.copy(source / "Training Batch 1/volume-0.nii", source / "copy/volume-0.nii")
    result = convert(LITS, source)
    assert result.names("converted") == ["liver_001"]
    assert rows(result.folder)["liver_000"]["reason"] == (
        "2 images: Training Batch 1/volume-0.nii and copy/volume-0.nii"
    )


def test_a_source_of_which_nothing_can_be_converted_leaves_a_report_and_no_data_set(kits19, raw):
    for file in (kits19 / "data").glob("*/imaging.nii.gz"):
        file.write_bytes(b"")
    assert main(["convert", "kits19", str(kits19)]) == 1
    assert files(raw / "Dataset019_KiTS19") == {"conversion_report.json"}


# Going on


def converted(monkeypatch):
    """Cases that are really converted from here on."""
    names, real = [], conversion._convert
    monkeypatch.setattr(conversion, "_convert", lambda case, *rest: names.append(case.name) or real(case, *rest))
    return names


@pytest.mark.faults("killed processes")
def test_a_killed_conversion_goes_on_and_leaves_no_half_written_file(kits19, raw, monkeypatch, capsys):
    real = SimpleITK.WriteImage

    def killed(image, file, **options):
        real(image, file, **options)
        if "case_00002" in file:
            content = Path(file).read_bytes()
            Path(file).write_bytes(content[:100])
            raise KeyboardInterrupt

    monkeypatch.setattr(SimpleITK, "WriteImage", killed)
    assert main(["convert", "kits19", str(kits19)]) == 130
    assert capsys.readouterr().err.endswith(
        "nnUNetv2_hlfd convert: interrupted. Run the same command again to continue.\n"
    )
    folder = raw / "Dataset019_KiTS19"
    assert states(folder) == {"case_00000": "converted", "case_00001": "converted"}
    assert not [file for file in files(folder) if "case_00002" in file]
    assert not (folder / "dataset.json").exists()
    monkeypatch.setattr(SimpleITK, "WriteImage", real)
    names = converted(monkeypatch)
    assert main(["convert", "kits19", str(kits19)]) == 0
    assert names == ["case_00002", "case_00003", "case_00210"]
    assert states(folder) == {**{f"case_0000{i}": "converted" for i in range(4)}, "case_00210": "unlabelled"}
    np.testing.assert_array_equal(nibabel.load(folder / "labelsTr/case_00002.nii.gz").get_fdata(), scene(2)[1])


def test_a_case_without_a_row_in_the_report_is_converted_again(kits19, raw, monkeypatch):
    """Killed between its image and its label."""
    folder = convert(KITS19, kits19).folder
    report = json.loads((folder / "conversion_report.json").read_text())
    report["cases"] = [row for row in report["cases"] if row["case"] != "case_00003"]
    (folder / "conversion_report.json").write_text(json.dumps(report))
    (folder / "labelsTr/case_00003.nii.gz").unlink()
    names = converted(monkeypatch)
    convert(KITS19, kits19)
    assert names == ["case_00003", "case_00210"]


def test_a_mended_case_is_converted_and_a_broken_one_taken_away(kits19, raw):
    label = kits19 / "data/case_00001/segmentation.nii.gz"
    good = label.read_bytes()
    label.write_bytes(good[:50])
    assert main(["convert", "kits19", str(kits19)]) == 1
    label.write_bytes(good)
    assert main(["convert", "kits19", str(kits19)]) == 0
    folder = raw / "Dataset019_KiTS19"
    assert states(folder)["case_00001"] == "converted"
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 4
    label.write_bytes(good[:50])
    assert main(["convert", "kits19", str(kits19)]) == 1
    assert not [file for file in files(folder) if "case_00001" in file]


@pytest.mark.faults("full, limited and read-only disks")
def test_a_disk_that_is_full_ends_the_conversion(tmp_path, raw):
    """SimpleITK itself writes half of a file and says nothing."""
    source = write_kits19(tmp_path / "large", cases=[0], shape=(6, 200, 200))
    command = [sys.executable, "-m", "nnunetv2_hlfd.cli.main", "convert", "kits19", source]
    process = run_on_disk(raw, "size=256k", command)
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1] == (
        f"nnUNetv2_hlfd convert: Could not write {raw}/Dataset019_KiTS19/imagesTr/case_00000_0000.nii.gz: "
        f"Compressed file ended before the end-of-stream marker was reached. The previous file, if any, is intact."
    )


# What is refused


def refused(arguments, capsys):
    assert main(["convert", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_a_folder_of_something_else_is_answered_with_the_layout(tmp_path, kits19, capsys):
    assert "Expected volume-0.nii and segmentation-0.nii" in refused(["lits", kits19], capsys)
    assert "found no label in" in refused(["kits19", tmp_path / "nowhere"], capsys)


@pytest.mark.parametrize("where", ["raw", "preprocessed", "results"])
def test_an_id_that_another_data_set_has_is_refused(tmp_path, kits19, capsys, where):
    (tmp_path / where / "Dataset019_Phantom").mkdir()
    assert "Dataset019_KiTS19 cannot be made: Dataset019_Phantom has that ID" in refused(["kits19", kits19], capsys)
    assert main(["convert", "kits19", str(kits19), "-d", "219"]) == 0
    assert (tmp_path / "raw/Dataset219_KiTS19/dataset.json").is_file()


def test_a_folder_with_other_data_is_left_alone(kits19, raw, tmp_path, capsys):
    stranger = raw / "Dataset019_KiTS19/imagesTr/mine_0000.nii.gz"
    stranger.parent.mkdir(parents=True)
    stranger.touch()
    assert "holds another data set" in refused(["kits19", kits19], capsys)
    shutil.rmtree(raw / "Dataset019_KiTS19")
    convert(KITS19, kits19)
    stranger.touch()
    assert "files of cases that this source lacks, such as mine_0000.nii.gz" in refused(["kits19", kits19], capsys)
    lits = write_lits(tmp_path / "lits", cases=[0])
    assert "was converted from kits19" in refused(["lits", lits, "-d", "Dataset019_KiTS19"], capsys)


def test_a_damaged_report_is_named(kits19, raw, capsys):
    folder = convert(KITS19, kits19).folder
    (folder / "conversion_report.json").write_text('{"challenge": "kits19", "cases": [1]}')
    assert "conversion_report.json is damaged" in refused(["kits19", kits19], capsys)


def test_unset_folders_are_named_before_anything_is_converted(kits19, raw, monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_preprocessed")
    assert "nnUNet_preprocessed is not defined" in refused(["kits19", kits19, "-split", "paper"], capsys)
    assert not files(raw)
    monkeypatch.delenv("nnUNet_raw")
    assert "nnUNet_raw is not defined" in refused(["kits19", kits19], capsys)


@pytest.mark.parametrize(
    ("given", "name"), [(None, "Dataset019_KiTS19"), ("7", "Dataset007_KiTS19"), ("Dataset300_Mine", "Dataset300_Mine")]
)
def test_names_of_data_sets(given, name):
    assert dataset_name("Dataset019_KiTS19", given) == name


@pytest.mark.parametrize("given", ["0", "1000", "Dataset19_KiTS", "KiTS19", "Dataset019_", "Dataset019_a/b", "-1"])
def test_what_is_no_data_set_name_is_refused(given):
    with pytest.raises(ValueError, match="Expected a data set ID from 1 to 999 or a name such as Dataset019_KiTS19"):
        dataset_name("Dataset019_KiTS19", given)


def test_the_command_line_offers_every_challenge():
    for name in CHALLENGES:
        assert make_parser().parse_args(["convert", name, "SOURCE"]).challenge == name


# The split


def splits(tmp_path):
    return json.loads((tmp_path / "preprocessed/Dataset019_KiTS19/splits_final.json").read_text())


def test_the_split_holds_out_every_case_once_and_a_seed_makes_another_one(tmp_path, capsys):
    source = write_kits19(tmp_path / "kits19", cases=range(10))
    names = [f"case_{i:05d}" for i in range(10)]
    assert main(["convert", "kits19", str(source), "-split", "paper"]) == 0
    assert "5 folds; fold 0 trains on 8 cases and validates on 2" in capsys.readouterr().out
    folds = splits(tmp_path)
    assert sorted(case for fold in folds for case in fold["val"]) == names
    assert all(sorted([*fold["train"], *fold["val"]]) == names for fold in folds)
    assert main(["convert", "kits19", str(source), "-split", "paper"]) == 0
    assert splits(tmp_path) == folds
    assert "has other folds, which trainings may have used" in refused(
        ["kits19", source, "-split", "paper", "-seed", "1"], capsys
    )
    (tmp_path / "preprocessed/Dataset019_KiTS19/splits_final.json").unlink()
    assert main(["convert", "kits19", str(source), "-split", "paper", "-seed", "1"]) == 0
    assert splits(tmp_path) != folds


@pytest.mark.parametrize(
    ("cases", "sizes"), [(210, [(168, 42)] * 5), (131, [(104, 27), *[(105, 26)] * 4])], ids=["KiTS19", "LiTS"]
)
def test_all_of_kits19_gives_the_papers_sizes(tmp_path, cases, sizes):
    """Of LiTS's 131:70 the 70 have no labels; fold 0 is what the documentation says."""
    write_splits("Dataset019_KiTS19", [f"case_{i:05d}" for i in range(cases)])
    assert [(len(fold["train"]), len(fold["val"])) for fold in splits(tmp_path)] == sizes


def test_a_split_of_too_few_cases_is_refused(kits19, capsys):
    assert "Expected at least 5 cases for 5 folds, got 4." in refused(["kits19", kits19, "-split", "paper"], capsys)
