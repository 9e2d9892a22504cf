"""Windowed plans in real preprocessing and training: what the network sees, and which teacher fits."""

import json

import numpy as np
import pytest
import SimpleITK
from helpers import command, make_trainer, train_once
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from phantom_data import DATASET

WINDOW = (-200.0, 200.0)


@pytest.fixture(scope="module")
def windowed(nnunet):
    """Name of plans that clip at WINDOW, preprocessed in 2d by the command that `plan` prints."""
    printed = command("nnUNetv2_hlfd", "plan", "-d", 901, "-name", "window", "-window", "-200,200").splitlines()[-1]
    name, *arguments = printed.split()
    command(name, *arguments[: arguments.index("-c")], "-c", "2d", "-np", 1)
    return "nnUNetPlans_window"


def test_preprocessed_cases_are_clipped_at_the_window(nnunet, windowed):
    """Against the raw image: cases of the phantom need no resampling."""
    plans = json.loads((nnunet / "preprocessed" / DATASET / f"{windowed}.json").read_text())
    folder = nnunet / "preprocessed" / DATASET / plans["configurations"]["2d"]["data_identifier"]
    data, *_ = nnUNetDatasetBlosc2(str(folder)).load_case("case_000")
    raw = SimpleITK.GetArrayFromImage(
        SimpleITK.ReadImage(str(nnunet / "raw" / DATASET / "imagesTr" / "case_000_0000.nii.gz"))
    )
    assert raw.min() < WINDOW[0]
    assert raw.max() > WINDOW[1]
    properties = plans["foreground_intensity_properties_per_channel"]["0"]
    expected = (np.clip(raw, *WINDOW) - properties["mean"]) / properties["std"]
    np.testing.assert_allclose(data[0], expected, atol=1e-4)


def test_a_teacher_of_the_same_window_teaches_and_one_of_other_intensities_is_refused(
    nnunet, windowed, variant, train, teacher_2d, monkeypatch
):
    plans = variant("short", base=windowed)
    teacher = train_once(nnunet, train, "nnUNetTrainerTeacher", plans=plans)
    student = make_trainer(nnunet, "nnUNetTrainerHLFD", variant("student", base=plans))
    student.on_train_start()
    assert student.distiller.origin[0]["plans_name"] == plans
    assert student.distiller.origin[0]["folder"] == str(teacher.parent)
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
    with pytest.raises(ValueError, match="CT intensity properties: the student has"):
        make_trainer(nnunet, "nnUNetTrainerHLFD", variant("other", base=plans)).on_train_start()
