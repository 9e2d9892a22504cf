"""A student's patches are mirrored along its teacher's axes only, and so are its predictions."""

import shutil
from pathlib import Path

import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from helpers import load, make_trainer, run_epoch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.deploy.describe import describe
from nnunetv2_hlfd.deploy.predictor import Predictor
from nnunetv2_hlfd.models.folder import ModelFolder

VARIABLE = "nnUNet_hlfd_teacher"


@pytest.fixture
def taught_along(teacher_2d, teacher_3d, tmp_path, monkeypatch):
    """Make a teacher teach whose checkpoint allows these axes, as those of nnUNetTrainerNoMirroring allow none."""

    def use(configuration, axes):
        source = (teacher_2d if configuration == "2d" else teacher_3d).parent
        ignored = shutil.ignore_patterns("*.nii.gz", "checkpoint_best.pth", "fold_[1-9]")
        folder = shutil.copytree(source, tmp_path / source.name, ignore=ignored)
        file = folder / "fold_0/checkpoint_final.pth"
        torch.save({**load(file), "inference_allowed_mirroring_axes": axes}, file)
        monkeypatch.setenv(VARIABLE, str(folder))
        return folder

    return use


def mirrored(trainer):
    """Axes along which training patches are mirrored, None where they are not."""
    transforms = trainer.dataloader_train.data_loader.transforms.transforms
    axes = [transform.allowed_axes for transform in transforms if isinstance(transform, MirrorTransform)]
    return axes[0] if axes else None


@pytest.mark.parametrize(
    ("configuration", "axes", "expected"),
    [
        ("2d", None, None),
        ("2d", (), None),
        ("2d", (1,), (1,)),
        ("3d_fullres", (0, 1), (0, 1)),
    ],
)
def test_the_teachers_axes_are_those_of_training_and_checkpoint(
    nnunet, variant, taught_along, configuration, axes, expected
):
    taught_along(configuration, axes)
    trainer = make_trainer(nnunet, "nnUNetTrainerKD", variant("axes"), configuration=configuration)
    trainer.on_train_start()
    assert mirrored(trainer) == expected
    file = Path(trainer.output_folder) / "checkpoint_started.pth"
    trainer.save_checkpoint(str(file))
    assert load(file)["inference_allowed_mirroring_axes"] == expected
    shutil.rmtree(trainer.output_folder)


@pytest.mark.parametrize(("choice", "expected"), [("nnunet", (0, 1)), ("none", None)])
def test_the_setting_overrules_the_teacher(nnunet, variant, taught_along, choice, expected):
    taught_along("2d", (1,))
    trainer = make_trainer(nnunet, "nnUNetTrainerKD", variant(f"axes.{choice}", mirroring=choice))
    trainer.on_train_start()
    assert (mirrored(trainer), trainer.inference_allowed_mirroring_axes) == (expected, expected)


def test_a_student_alone_has_no_teacher_to_ask(nnunet, variant, taught_along):
    taught_along("2d", None)
    trainer = make_trainer(nnunet, "nnUNetTrainerStudent", variant("axes"))
    trainer.on_train_start()
    assert mirrored(trainer) == trainer.inference_allowed_mirroring_axes == (0, 1)


def test_a_continued_run_and_its_validation_keep_the_axes_where_the_teacher_is_gone(
    nnunet, variant, taught_along, train, monkeypatch
):
    folder = taught_along("2d", None)
    plans = variant("axes.kept")
    trainer = make_trainer(nnunet, "nnUNetTrainerKD", plans)
    trainer.on_train_start()
    run_epoch(trainer)
    trainer = make_trainer(nnunet, "nnUNetTrainerKD", plans, continue_training=True)
    trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    trainer.on_train_start()
    assert mirrored(trainer) is None
    run_epoch(trainer)
    trainer.on_train_end()
    shutil.rmtree(folder)
    monkeypatch.delenv(VARIABLE)
    fold = train("nnUNetTrainerKD", plans=plans, only_run_validation=True)
    assert (fold / "validation/summary.json").is_file()
    validating = make_trainer(nnunet, "nnUNetTrainerKD", plans)
    validating.load_checkpoint(str(fold / "checkpoint_final.pth"))
    assert validating.inference_allowed_mirroring_axes is None


def test_prediction_and_exports_follow_as_stock_nnunet_does(nnunet, variant, taught_along, tmp_path):
    taught_along("2d", (1,))
    trainer = make_trainer(nnunet, "nnUNetTrainerKD", variant("axes.exported"))
    trainer.on_train_start()
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    model = Path(trainer.output_folder_base)
    assert main(["export", "-m", str(model), "-o", str(tmp_path / "nnunet")]) == 0
    [exported] = (tmp_path / "nnunet/Dataset901_Phantom").iterdir()
    for folder in (model, exported):
        stock = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
        stock.initialize_from_trained_model_folder(str(folder), None)
        predictor = Predictor(folder, device=torch.device("cpu"))
        assert tuple(stock.allowed_mirroring_axes) == tuple(predictor.allowed_mirroring_axes) == (1,)
        assert describe(ModelFolder.open(folder), mirroring=True).mirror_axes == (1,)
    assert main(["export", "-m", str(model), "-o", str(tmp_path / "none"), "--no_mirroring"]) == 0
    [exported] = (tmp_path / "none/Dataset901_Phantom").iterdir()
    assert Predictor(exported, device=torch.device("cpu")).allowed_mirroring_axes is None
    shutil.rmtree(model)
