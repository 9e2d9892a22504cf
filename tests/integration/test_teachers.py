"""Teachers of other kinds in real trainings: residual encoders, regions, ignore label, several folds."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import load, make_trainer

REGIONS = "Dataset902_PhantomRegionsIgnore"


def _steps(trainer):
    """Start the training and make one step; returns the trainer."""
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    result = trainer.train_step(next(trainer.dataloader_train))
    assert result["terms"].shape == (5,)
    assert (result["terms"] > 0).all()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in trainer.method.parameters())
    return trainer


@pytest.fixture(scope="module")
def regions_teacher(variant, train):
    """Plans name under which a teacher of overlapping regions with an ignore label is trained."""
    plans = variant("short", dataset=REGIONS)
    train("nnUNetTrainerTeacher", dataset=REGIONS, plans=plans)
    return plans


def _write_residual_plans(nnunet):
    """Plans of their own name with a residual encoder, on the same preprocessed data."""
    folder = nnunet / "preprocessed/Dataset901_Phantom"
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["plans_name"] = "nnUNetResEncPlans"
    architecture = plans["configurations"]["2d"]["architecture"]
    kwargs = architecture["arch_kwargs"]
    architecture["network_class_name"] = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    kwargs["n_blocks_per_stage"] = [1, 2, 2, 2][: kwargs["n_stages"]]
    del kwargs["n_conv_per_stage"]
    (folder / "nnUNetResEncPlans.json").write_text(json.dumps(plans))


def test_residual_encoder_teacher_with_plans_of_its_own(nnunet, variant, train, monkeypatch):
    _write_residual_plans(nnunet)
    teacher = train("nnUNetTrainerTeacher", plans=variant("short", base="nnUNetResEncPlans"))
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher.parent))
    trainer = _steps(make_trainer(nnunet, "nnUNetTrainerHLFD", variant("resenc")))
    assert trainer.teacher_origin[0]["plans_name"] == "nnUNetResEncPlans_short"
    assert "teacher      3       32" in trainer.tap_table()


@pytest.mark.parametrize("distill_ignored", [True, False])
def test_regions_with_ignore_label(nnunet, variant, regions_teacher, distill_ignored):
    name = variant(f"ignored{distill_ignored}", dataset=REGIONS, base=regions_teacher, distill_ignored=distill_ignored)
    trainer = _steps(make_trainer(nnunet, "nnUNetTrainerHLFD", name, dataset=REGIONS))
    assert trainer.method.methods["HLFD"].task.regions
    assert trainer.method.methods["HLFD"].task.num_heads == 2
    assert trainer.method.methods["HLFD"].task.ignore_label == 3


def test_unannotated_batch_teaches_through_distillation_alone(nnunet, variant, regions_teacher):
    """All voxels ignored: the segmentation loss is 0, the terms still have gradients."""
    plans = variant("blank", dataset=REGIONS, base=regions_teacher)
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", plans, dataset=REGIONS)
    trainer.on_train_start()
    batch = next(trainer.dataloader_train)
    for target in batch["target"]:
        target[:] = 0
        target[:, -1] = 1
    result = trainer.train_step(batch)
    segmentation, *terms = result["terms"]
    assert segmentation == pytest.approx(0, abs=1e-6)
    assert min(terms) > 0
    encoder = trainer.network.encoder
    assert sum(each.grad.abs().sum() for each in encoder.parameters() if each.grad is not None) > 0


def test_teacher_without_deep_supervision_teaches_by_its_final_map(nnunet, variant, teacher_2d, tmp_path, monkeypatch):
    copy = shutil.copytree(teacher_2d.parent, tmp_path / "nnUNetTrainerNoDeepSupervision__nnUNetPlans__2d")
    file = copy / "fold_0/checkpoint_final.pth"
    checkpoint = load(file)
    for name, value in checkpoint["network_weights"].items():
        if "seg_layers.0.bias" in name or "seg_layers.1.bias" in name:
            value.zero_()  # as nnU-Net initializes it
    torch.save({**checkpoint, "trainer_name": "nnUNetTrainerNoDeepSupervision"}, file)
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(copy))
    trainer = _steps(make_trainer(nnunet, "nnUNetTrainerHLFD", variant("nods")))
    assert trainer.teacher.networks[0].taps.heads == ()
    assert "none, the final map instead" in trainer.describe()
    record = json.loads((copy.parent / trainer.output_folder / "distillation.json").read_text())
    assert "none, the final map instead" in record["tap_table"][-1]


def test_student_of_fold_all_learns_from_five_folds(nnunet, variant, teacher_2d, tmp_path, monkeypatch):
    copy = shutil.copytree(teacher_2d.parent, tmp_path / "nnUNetTrainer__nnUNetPlans__2d")
    for fold in range(1, 5):
        shutil.copytree(copy / "fold_0", copy / f"fold_{fold}")
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(copy))
    trainer = _steps(make_trainer(nnunet, "nnUNetTrainerHLFD", variant("all"), fold="all"))
    assert [each["checkpoint"] for each in trainer.teacher_origin] == [
        f"fold_{fold}/checkpoint_final.pth" for fold in range(5)
    ]


def test_explicit_teacher_of_another_fold_is_warned_about_and_recorded(nnunet, variant, teacher_2d, monkeypatch):
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
    trainer = _steps(make_trainer(nnunet, "nnUNetTrainerHLFD", variant("foreign", teacher_fold=0), fold=1))
    assert "WARNING: the teacher may have seen this fold's validation cases" in trainer.describe()
    assert trainer.teacher_origin[0]["may_have_seen_validation_cases"]


def test_student_that_is_not_smaller_is_warned_about(nnunet, variant, teacher_2d, monkeypatch):
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
    trainer = _steps(make_trainer(nnunet, "nnUNetTrainerHLFD", variant("large", student="resnet18")))
    assert "WARNING: the student is not smaller than its teacher" in trainer.describe()


@pytest.mark.parametrize("configuration", ["2d", pytest.param("3d_fullres", marks=pytest.mark.slow)])
def test_unet_plus_plus_trains_predicts_is_exported_and_teaches(
    nnunet, variant, train, tmp_path, monkeypatch, configuration
):
    """Its checkpoint names its own trainer, so each of these needs nnUNet_extTrainer (set in these tests)."""
    trainer, plans = "nnUNetTrainerUNetPlusPlus", variant("short")
    fold = train(trainer, configuration=configuration, plans=plans)
    assert (fold / "validation/summary.json").is_file()
    assert load(fold / "checkpoint_final.pth")["trainer_name"] == trainer
    _nnunet("nnUNetv2_export_model_to_zip", "-d", "901", "-o", tmp_path / "model.zip", "-c", configuration, "-f", "0",
            "-tr", trainer, "-p", plans)  # fmt: skip
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "installed"))
    _nnunet("nnUNetv2_install_pretrained_model_from_zip", tmp_path / "model.zip")
    output = tmp_path / "predicted"
    images = nnunet / "raw/Dataset901_Phantom/imagesTs"
    _nnunet("nnUNetv2_predict", "-d", "901", "-c", configuration, "-f", "0", "-tr", trainer, "-p", plans, "-i", images,
            "-o", output, "-device", "cpu", "-npp", "0", "-nps", "0")  # fmt: skip
    assert len(list(output.glob("*.nii.gz"))) == 1
    monkeypatch.setenv("nnUNet_results", str(nnunet / "results"))
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(fold.parent))
    student = make_trainer(nnunet, "nnUNetTrainerHLFD", variant("unetpp"), configuration=configuration)
    _steps(student)
    assert student.teacher_origin[0]["trainer"] == trainer
    assert student.teacher.networks[0].taps.heads == (1,)


def _nnunet(command, *arguments):
    done = subprocess.run(
        [Path(sys.executable).parent / command, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
