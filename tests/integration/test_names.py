"""A data set whose name has spaces and signs of the shell, from its plans to a prediction of stock nnU-Net."""

import json
import shutil
import zipfile

import pytest
import SimpleITK
from helpers import stock

from nnunetv2_hlfd.cli.main import main

NAME = "Dataset907_My data (new) & more"
SOURCE = "Dataset901_Phantom"
INSTALL = "nnunetv2.model_sharing.entry_points:install_from_zip_entry_point"
PREDICT = "nnunetv2.inference.predict_from_raw_data:predict_entry_point"


@pytest.fixture
def renamed(nnunet):
    """The preprocessed phantom under this name."""
    folder = shutil.copytree(nnunet / "preprocessed" / SOURCE, nnunet / "preprocessed" / NAME)
    plans = folder / "nnUNetPlans.json"
    plans.write_text(json.dumps({**json.loads(plans.read_text()), "dataset_name": NAME}))
    yield folder
    shutil.rmtree(folder)
    shutil.rmtree(nnunet / "results" / NAME)


@pytest.mark.slow
def test_a_student_is_planned_trained_predicted_and_exported(
    renamed, nnunet, variant, train, teacher_2d, tmp_path, monkeypatch, capsys
):
    plans = variant("named", dataset=NAME, num_epochs=1)
    with pytest.raises(
        ValueError, match="Train one with: nnUNetv2_train 'Dataset907_My data \\(new\\) & more' 2d 0 -p"
    ):
        train("nnUNetTrainerKD", dataset=NAME, plans=plans)
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
    model = train("nnUNetTrainerKD", dataset=NAME, plans=plans).parent
    images = ["-i", str(nnunet / "raw" / SOURCE / "imagesTs"), "-device", "cpu"]
    names = ["-c", "2d", "-f", "0", "-d", NAME]
    assert main(["predict", *names, "-tr", "nnUNetTrainerKD", "-p", plans, "-o", str(tmp_path / "own"), *images]) == 0
    assert main(["export", "-m", str(model), "-o", str(tmp_path / "out")]) == 0
    [archive] = (tmp_path / "out").glob("*.zip")
    assert all(name.startswith(f"{NAME}/") for name in zipfile.ZipFile(archive).namelist())
    (tmp_path / "results").mkdir()
    variables = {"nnUNet_results": str(tmp_path / "results")}
    stock(INSTALL, archive, **variables)
    arguments = [*names, "-p", f"{plans}HLFD", "-o", tmp_path / "stock", *images, "-npp", "1", "-nps", "1"]
    stock(PREDICT, *arguments, **variables)
    own, expected = (
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(next((tmp_path / folder).glob("*.nii.gz")))))
        for folder in ("own", "stock")
    )
    assert (own == expected).mean() > 0.998  # nnU-Net sums in float16
