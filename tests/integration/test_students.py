"""Every student trains, validates and predicts through nnU-Net, the last without this package."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from helpers import PREDICT, load, prediction, stock

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
    _predict_and_check(nnunet, fold, tmp_path)


@pytest.mark.parametrize("trainer", ["nnUNetTrainerHLFD", pytest.param("nnUNetTrainerTeacher", marks=pytest.mark.slow)])
def test_anisotropic_3d_trains_validates_and_predicts(
    nnunet, variant, train, teacher_3d, tmp_path, monkeypatch, trainer
):
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher_3d.parent))
    fold = train(trainer, configuration="3d_fullres", plans=variant("short"))
    _predict_and_check(nnunet, fold, tmp_path)


def _predict_and_check(nnunet: Path, fold: Path, output: Path) -> None:
    images = nnunet / "raw/Dataset901_Phantom/imagesTs"
    stock(PREDICT, *prediction(fold.parent, images, output), "--disable_tta")
    [image_file] = images.glob("*.nii.gz")
    labels = SimpleITK.ReadImage(str(output / image_file.name.replace("_0000", "")))
    image = SimpleITK.ReadImage(str(image_file))
    assert labels.GetSize() == image.GetSize()
    np.testing.assert_allclose(labels.GetSpacing(), image.GetSpacing())
    assert set(np.unique(SimpleITK.GetArrayFromImage(labels))) <= {0, 1, 2}
