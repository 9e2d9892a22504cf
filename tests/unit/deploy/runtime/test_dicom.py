"""DICOM series become the volumes that they are, or are refused with the reason."""

import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_series import write_series

from nnunetv2_hlfd.deploy.runtime.dicom import find_series, write_volume

VOLUME = np.random.default_rng(0).integers(-1000, 1000, (6, 8, 10))
ROTATED = (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)
SAGITTAL = (0, 0, 1, 1, 0, 0, 0, 1, 0)


@pytest.mark.parametrize("direction", [ROTATED, SAGITTAL])
def test_a_series_is_the_volume_whatever_its_files_are_called(tmp_path, direction):
    written = write_series(tmp_path / "in/patient", VOLUME, direction=direction)
    found = find_series(tmp_path / "in", 1, tmp_path / "out")
    assert list(found) == [("patient", 0)]
    image = SimpleITK.ReadImage(str(write_volume(found["patient", 0], tmp_path, 0)))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), VOLUME)
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(image, what)(), getattr(written, what)(), atol=1e-5)


def test_folders_and_series_in_them_are_cases(tmp_path):
    for number in (1, 2):
        write_series(tmp_path / "several", VOLUME, number=number, origin=(0, 0, number))
        for file in (tmp_path / "several").glob("IM*"):
            file.rename(file.with_name(f"{number}{file.name}"))
    write_series(tmp_path / "study/T1", VOLUME)
    write_series(tmp_path / "pair_0000", VOLUME)
    write_series(tmp_path / "pair_0001", VOLUME)
    write_series(tmp_path / "patient_1234", VOLUME)
    write_series(tmp_path / "out/old", VOLUME)
    (tmp_path / "empty").mkdir()
    (tmp_path / "several/readme.txt").write_text("no image")
    found = find_series(tmp_path, 2, tmp_path / "out")
    assert sorted(found) == [
        ("pair", 0),
        ("pair", 1),
        ("patient_1234", 0),
        ("several_1", 0),
        ("several_2", 0),
        ("study_T1", 0),
    ]
    assert {len(series.files) for series in found.values()} == {6}
    assert ("pair_0001", 0) in find_series(tmp_path, 1, tmp_path / "out")


def test_two_series_of_one_name_are_refused(tmp_path):
    write_series(tmp_path / "a/b", VOLUME)
    write_series(tmp_path / "a_b", VOLUME)
    with pytest.raises(ValueError, match="got two for a_b"):
        find_series(tmp_path, 1, tmp_path / "out")


def test_a_folder_of_slices_is_one_case_of_its_name(tmp_path):
    write_series(tmp_path / "patient", VOLUME)
    assert list(find_series(tmp_path / "patient", 1, tmp_path / "out")) == [("patient", 0)]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"left_out": [3]}, "slices of the DICOM series are missing: they are 2.5 to 5 mm apart"),
        ({"tags": {"0020|0032": "0\\0\\0"}}, "several slices at one place"),
    ],
)
def test_what_is_no_volume_is_refused(tmp_path, how, message):
    write_series(tmp_path / "patient", VOLUME, **how)
    [series] = find_series(tmp_path, 1, tmp_path / "out").values()
    with pytest.raises(ValueError, match=message):
        write_volume(series, tmp_path, 0)


def test_a_series_without_places_is_refused(tmp_path):
    write_series(tmp_path / "patient", VOLUME)
    for file in (tmp_path / "patient").iterdir():
        header = pydicom.dcmread(file)
        del header.ImageOrientationPatient
        header.save_as(file)
    [series] = find_series(tmp_path, 1, tmp_path / "out").values()
    with pytest.raises(ValueError, match="does not say where its slices lie"):
        write_volume(series, tmp_path, 0)


def test_a_tilted_gantry_is_refused(tmp_path):
    """The table moves along z, the slices are turned about x: their positions are shifted within their planes."""
    turn = np.deg2rad(15)
    direction = (1, 0, 0, 0, np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn))
    for index in range(4):
        write_series(
            tmp_path / f"part{index}", VOLUME[index : index + 1], origin=(0, 0, 3 * index), direction=direction
        )
        [file] = (tmp_path / f"part{index}").iterdir()
        (tmp_path / "in").mkdir(exist_ok=True)
        file.rename(tmp_path / f"in/{index}.dcm")
    [series] = find_series(tmp_path / "in", 1, tmp_path / "out").values()
    with pytest.raises(ValueError, match="shifted against each other"):
        write_volume(series, tmp_path, 0)


def test_one_slice_is_a_volume(tmp_path):
    write_series(tmp_path / "patient", VOLUME[:1])
    [series] = find_series(tmp_path, 1, tmp_path / "out").values()
    assert SimpleITK.ReadImage(str(write_volume(series, tmp_path, 0))).GetSize() == (10, 8, 1)
