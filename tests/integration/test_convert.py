"""Converted data sets in nnU-Net's own hands."""

import hashlib
import json

import numpy as np
import pytest
from downloads import SHAPE, SPACING, scene, write_decathlon, write_kits19, write_lits
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from phantom_data import plan

from nnunetv2_hlfd.cli.main import main

WRITERS = {"kits19": (write_kits19, "kits19"), "lits": (write_lits, "lits"), "decathlon": (write_decathlon, "lits")}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return tmp_path


@pytest.mark.parametrize("source", WRITERS)
def test_nnunet_accepts_the_data_set_without_a_warning(source, folders, capfd):
    write, challenge = WRITERS[source]
    download = write(folders / "download", cases=[0, 1, 2], unlabelled=[200])
    assert main(["convert", challenge, str(download), "-d", "19", "--regions"]) == 0
    [folder] = (folders / "raw").iterdir()
    verify_dataset_integrity(str(folder), num_processes=1)
    printed = capfd.readouterr().out
    assert "verify_dataset_integrity Done." in printed
    assert "Warning" not in printed


def test_nnunet_reads_kits19_with_the_slices_last_and_plans_them_as_the_third_axis(folders):
    """The axes stay as they are in the files; nnU-Net's plans turn the coarsest one to the front."""
    download = write_kits19(folders / "download", cases=range(5))
    assert main(["convert", "kits19", str(download), "-split", "paper"]) == 0
    folder = folders / "raw" / "Dataset019_KiTS19"
    data, properties = SimpleITKIO().read_images([str(folder / "imagesTr/case_00002_0000.nii.gz")])
    np.testing.assert_array_equal(data[0], scene(2)[0].T)
    np.testing.assert_allclose(properties["spacing"], SPACING[::-1])
    splits = folders / "preprocessed" / "Dataset019_KiTS19" / "splits_final.json"
    before = hashlib.sha256(splits.read_bytes()).hexdigest()
    plan([19])
    assert hashlib.sha256(splits.read_bytes()).hexdigest() == before
    plans = json.loads((splits.parent / "nnUNetPlans.json").read_text())
    assert plans["transpose_forward"][0] == 2
    assert plans["original_median_shape_after_transp"][0] == SHAPE[0]
    assert plans["configurations"]["2d"]["normalization_schemes"] == ["CTNormalization"]
