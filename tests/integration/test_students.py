"""Every student trains, validates and predicts through nnU-Net, the last without this package."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from helpers import load, stock

from nnunetv2_hlfd.networks.students import CHOICES as STUDENTS

QUICK = ("auto",)


@pytest.mark.parametrize(
    "student", [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in STUDENTS]
)
def test_student_trains_validates_and_predicts_on_a_host_without_this_package(
    nnunet, variant, train, teacher_2d, tmp_path, monkeypatch, student
):
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
    fold = train("nnUNetTrainerHLFD", plans=variant(f"student.{student.replace('_', '.')}", student=student))
    assert (fold / "validation/summary.json").is_file()
    checkpoint = load(fold / "checkpoint_final.pth")
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert not any("method" in name or "teacher" in name for name in checkpoint["network_weights"])
    _predict_and_check(nnunet, fold, "2d", tmp_path)


@pytest.mark.parametrize("trainer", ["nnUNetTrainerHLFD", pytest.param("nnUNetTrainerTeacher", marks=pytest.mark.slow)])
def test_anisotropic_3d_trains_validates_and_predicts(
    nnunet, variant, train, teacher_3d, tmp_path, monkeypatch, trainer
):
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher_3d.parent))
    fold = train(trainer, configuration="3d_fullres", plans=variant("short"))
    _predict_and_check(nnunet, fold, "3d_fullres", tmp_path)


def _predict_and_check(nnunet: Path, fold: Path, configuration: str, output: Path) -> None:
    images = nnunet / "raw/Dataset901_Phantom/imagesTs"
    trainer, plans, _ = fold.parent.name.split("__")
    stock(
        "nnunetv2.inference.predict_from_raw_data:predict_entry_point",
        "-d",
        "Dataset901_Phantom",
        "-c",
        configuration,
        "-f",
        "0",
        "-tr",
        trainer,
        "-p",
        plans,
        "-i",
        images,
        "-o",
        output,
        "-device",
        "cpu",
        "--disable_tta",
        "-npp",
        "0",
        "-nps",
        "0",
    )
    [image_file] = images.glob("*.nii.gz")
    prediction = SimpleITK.ReadImage(str(output / image_file.name.replace("_0000", "")))
    image = SimpleITK.ReadImage(str(image_file))
    assert prediction.GetSize() == image.GetSize()
    np.testing.assert_allclose(prediction.GetSpacing(), image.GetSpacing())
    assert set(np.unique(SimpleITK.GetArrayFromImage(prediction))) <= {0, 1, 2}
