"""Teachers of other kinds in real trainings: residual encoders, regions, ignore label, several folds."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from helpers import command, load, make_trainer, prediction, train_once
from phantom_data import DATASETS

REGIONS = "Dataset902_PhantomRegionsIgnore"


def _steps(trainer):
    """Start the training and make one step; returns the trainer."""
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    result = trainer.train_step(next(trainer.dataloader_train))
    assert result["terms"].shape == (5,)
    assert (result["terms"] > 0).all()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in trainer.distiller.method.parameters())
    return trainer


@pytest.fixture(scope="module")
def regions_teacher(variant, train):
    """Plans name under which a teacher of overlapping regions with an ignore label is trained."""
    plans = variant("short", dataset=REGIONS)
    train("nnUNetTrainerTeacher", dataset=REGIONS, plans=plans)
    return plans


PRESETS = ("M", "L", "XL")


def _plan_preset(nnunet, preset, monkeypatch):
    """Plans of nnU-Net's own ResEnc planner, narrowed and shortened; returns their name."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")  # planning fails with 0
    command("nnUNetv2_plan_experiment", "-d", "901", "-pl", f"nnUNetPlannerResEnc{preset}")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    name = f"nnUNetResEncUNet{preset}Plans"
    file = nnunet / "preprocessed/Dataset901_Phantom" / f"{name}.json"
    plans = json.loads(file.read_text())
    for configuration in plans["configurations"].values():
        kwargs = configuration["architecture"]["arch_kwargs"]
        kwargs["features_per_stage"] = [min(8 * 2**i, 32) for i in range(kwargs["n_stages"])]
        configuration["batch_size"] = 2
    file.write_text(json.dumps(plans))
    return name


@pytest.mark.parametrize(
    ("preset", "configuration"),
    [
        pytest.param(preset, configuration, marks=() if (preset, configuration) == ("M", "2d") else pytest.mark.slow)
        for preset in PRESETS
        for configuration in ("2d", "3d_fullres")
    ],
)
def test_residual_encoder_presets_teach_under_their_plans_and_under_the_default_ones(
    nnunet, variant, train, monkeypatch, preset, configuration
):
    base = _plan_preset(nnunet, preset, monkeypatch)
    plans = variant("short", base=base)
    teacher = train_once(nnunet, train, "nnUNetTrainerTeacher", plans=plans, configuration=configuration)
    own = _steps(make_trainer(nnunet, "nnUNetTrainerHLFD", variant("student", base=plans), configuration=configuration))
    assert own.distiller.origin[0]["plans_name"] == plans
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher.parent))
    default = variant(f"resenc{preset}")
    trainer = _steps(make_trainer(nnunet, "nnUNetTrainerHLFD", default, configuration=configuration))
    assert trainer.distiller.origin[0]["plans_name"] == plans
    assert type(trainer.distiller.teacher.networks[0].network).__name__ == "ResidualEncoderUNet"
    assert len(trainer.distiller.teacher.networks[0].shape.taps.mids) == 2


CUSTOM = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn


class nnUNetTrainerColleague(nnUNetTrainer):
    \"\"\"A network that the plans do not describe: another non-linearity.\"\"\"

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, *arguments, **more):
        network = nnUNetTrainer.build_network_architecture(plans_manager, configuration_manager, *arguments, **more)
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.LeakyReLU):
                    setattr(module, name, nn.SiLU())
        return network
"""


def test_custom_trainer_in_extTrainer_teaches_with_its_own_network(  # noqa: N802
    nnunet, variant, teacher_2d, tmp_path, monkeypatch
):
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers/colleagues_trainers.py").write_text(CUSTOM)
    copy = shutil.copytree(teacher_2d.parent, tmp_path / "nnUNetTrainerColleague__nnUNetPlans__2d")
    file = copy / "fold_0/checkpoint_final.pth"
    torch.save({**load(file), "trainer_name": "nnUNetTrainerColleague"}, file)
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(copy))
    plans = variant("colleague")
    with pytest.raises(ValueError, match=r"trained by nnUNetTrainerColleague, which nnU-Net does not find\. Name"):
        make_trainer(nnunet, "nnUNetTrainerHLFD", plans).on_train_start()
    both = os.pathsep.join([os.environ["nnUNet_extTrainer"], str(tmp_path / "trainers")])
    monkeypatch.setenv("nnUNet_extTrainer", both)
    trainer = _steps(make_trainer(nnunet, "nnUNetTrainerHLFD", plans))
    names = {type(each).__name__ for each in trainer.distiller.teacher.networks[0].network.modules()}
    assert "SiLU" in names
    assert "LeakyReLU" not in names


def test_several_folders_teach_by_the_mean_of_their_attention_and_probabilities(
    nnunet, variant, teacher_2d, tmp_path, monkeypatch
):
    copy = _second_teacher(teacher_2d, tmp_path)
    monkeypatch.setenv("nnUNet_hlfd_teacher", os.pathsep.join([str(teacher_2d.parent), str(copy)]))
    plans = variant("two")
    trainer = _steps(make_trainer(nnunet, "nnUNetTrainerHLFD", plans))
    assert [each["folder"] for each in trainer.distiller.origin] == [str(teacher_2d.parent), str(copy)]
    data = next(trainer.dataloader_train)["data"]
    taught = trainer.distiller.teacher(data)
    with torch.no_grad():
        logits = [each.network.decoder(each.network.encoder(data))[0] for each in trainer.distiller.teacher.networks]
        late = [each.network.encoder(data)[3].abs().mean(1).flatten(1) for each in trainer.distiller.teacher.networks]
    assert not torch.allclose(*logits)
    expected = (logits[0].div(4).softmax(1) + logits[1].div(4).softmax(1)) / 2
    torch.testing.assert_close(taught.probabilities(0, 4.0, regions=False), expected)
    mean = sum(each / each.norm(dim=1, keepdim=True) for each in late) / 2
    torch.testing.assert_close(taught.attention(3, 1.0), mean / mean.norm(dim=1, keepdim=True))
    trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
    again = make_trainer(nnunet, "nnUNetTrainerHLFD", plans, continue_training=True)
    again.load_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    with pytest.raises(ValueError, match=r"started with another teacher: expected .*second.* found .*without --c"):
        again.on_train_start()


def test_several_folders_of_different_stages_are_refused_with_both(nnunet, variant, teacher_2d, monkeypatch):
    """Their maps could not be averaged."""
    file = nnunet / "preprocessed/Dataset901_Phantom/nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["plans_name"] = "nnUNetWidePlans"
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"][-1] = 40
    (file.parent / "nnUNetWidePlans.json").write_text(json.dumps(plans))
    trainer = make_trainer(nnunet, "nnUNetTrainerTeacher", variant("short", base="nnUNetWidePlans"))
    trainer.run_training()
    wide = Path(trainer.output_folder)
    shutil.copytree(teacher_2d / "validation", wide / "validation")
    monkeypatch.setenv("nnUNet_hlfd_teacher", os.pathsep.join([str(teacher_2d.parent), str(wide.parent)]))
    with pytest.raises(ValueError, match="The teachers' outputs cannot be averaged, their stages") as caught:
        make_trainer(nnunet, "nnUNetTrainerHLFD", variant("mixed")).on_train_start()
    ours, theirs = (f"8 at 1x1, 16 at 2x2, 32 at 4x4, {last} at 8x8" for last in (32, 40))
    assert f"differ: {ours} in {teacher_2d}/checkpoint_final.pth, {theirs} in {wide}/checkpoint_final.pth." in str(
        caught.value
    )


def test_several_folders_of_different_trained_outputs_are_refused(nnunet, variant, teacher_2d, tmp_path, monkeypatch):
    copy = _second_teacher(teacher_2d, tmp_path)
    file = copy / "fold_0/checkpoint_final.pth"
    checkpoint = load(file)
    checkpoint["network_weights"]["decoder.seg_layers.1.bias"].zero_()  # as nnU-Net initializes it
    torch.save(checkpoint, file)
    monkeypatch.setenv("nnUNet_hlfd_teacher", os.pathsep.join([str(teacher_2d.parent), str(copy)]))
    with pytest.raises(ValueError, match=r"their trained intermediate outputs differ: \(1,\) in .*, \(\) in .*second"):
        make_trainer(nnunet, "nnUNetTrainerHLFD", variant("headless")).on_train_start()


def _second_teacher(teacher, tmp_path):
    """A model folder of the same plans with other weights."""
    copy = shutil.copytree(teacher.parent, tmp_path / "second" / teacher.parent.name)
    file = copy / "fold_0/checkpoint_final.pth"
    checkpoint = load(file)
    generator = torch.Generator().manual_seed(3)
    for name, value in checkpoint["network_weights"].items():
        if name.endswith("conv.weight"):
            value += 0.1 * torch.randn(value.shape, generator=generator)
    torch.save(checkpoint, file)
    return copy


@pytest.mark.parametrize("distill_ignored", [True, False])
def test_regions_with_ignore_label(nnunet, variant, regions_teacher, distill_ignored):
    name = variant(f"ignored{distill_ignored}", dataset=REGIONS, base=regions_teacher, distill_ignored=distill_ignored)
    trainer = _steps(make_trainer(nnunet, "nnUNetTrainerHLFD", name, dataset=REGIONS))
    assert trainer.distiller.method.methods["HLFD"].task.regions
    assert trainer.distiller.method.methods["HLFD"].task.num_heads == 2
    assert trainer.distiller.method.methods["HLFD"].task.ignore_label == 3


@pytest.mark.parametrize(("recipe", "nothing"), [("paper", 0), ("nnunet", -1)])
@pytest.mark.parametrize("labels", ["regions_ignore", pytest.param("ignore", marks=pytest.mark.slow)])
def test_unannotated_batch_teaches_through_distillation_alone(nnunet, variant, train, labels, recipe, nothing):
    """All voxels ignored: the segmentation loss is 0 (nnU-Net's: minus a Dice of 1), the terms still have gradients."""
    dataset = DATASETS[labels]
    teacher = variant("short", dataset=dataset)
    train_once(nnunet, train, "nnUNetTrainerTeacher", dataset=dataset, plans=teacher)
    plans = variant(f"blank{recipe}", dataset=dataset, base=teacher, recipe=recipe)
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", plans, dataset=dataset)
    trainer.on_train_start()
    batch = next(trainer.dataloader_train)
    for target in batch["target"]:
        if labels == "ignore":
            target[:] = 3
        else:
            target[:] = 0
            target[:, -1] = 1
    result = trainer.train_step(batch)
    segmentation, *terms = result["terms"]
    assert segmentation == pytest.approx(nothing, abs=1e-6)
    assert min(terms) > 0
    assert all(each.grad.abs().sum() > 0 for each in trainer.distiller.method.parameters())
    encoder = trainer.network.encoder
    assert sum(each.grad.abs().sum() for each in encoder.parameters() if each.grad is not None) > 0


def test_unannotated_batch_trains_by_soft_labels_alone(nnunet, variant, train):
    """teacher_share 1 on voxels that are all ignored: every output of the student learns from the teacher."""
    dataset = DATASETS["regions_ignore"]
    teacher = variant("short", dataset=dataset)
    train_once(nnunet, train, "nnUNetTrainerTeacher", dataset=dataset, plans=teacher)
    plans = variant("blank.soft", dataset=dataset, base=teacher, teacher_share=1)
    trainer = make_trainer(nnunet, "nnUNetTrainerSoftLabel", plans, dataset=dataset)
    trainer.on_train_start()
    batch = next(trainer.dataloader_train)
    for target in batch["target"]:
        target[:] = 0
        target[:, -1] = 1
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    result = trainer.train_step(batch)
    segmentation, soft_label = result["terms"]
    assert segmentation == pytest.approx(0, abs=1e-6)
    assert result["loss"] == pytest.approx(soft_label)
    assert soft_label > 0
    changed = [name for name, value in trainer.network.named_parameters() if not torch.equal(value, before[name])]
    assert {"encoder", "decoder"} == {name.split(".")[0] for name in changed}
    assert all(value.isfinite().all() for value in trainer.network.parameters())


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
    assert trainer.distiller.teacher.networks[0].shape.taps.heads == ()
    assert "none, the final map instead" in trainer.describe()
    record = json.loads((copy.parent / trainer.output_folder / "distillation.json").read_text())
    assert "none, the final map instead" in record["tap_table"][-1]


def test_student_of_fold_all_learns_from_fold_all(nnunet, variant, teacher_2d, tmp_path, monkeypatch):
    copy = shutil.copytree(teacher_2d.parent, tmp_path / "nnUNetTrainer__nnUNetPlans__2d")
    (copy / "fold_0").rename(copy / "fold_all")
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(copy))
    trainer = _steps(make_trainer(nnunet, "nnUNetTrainerHLFD", variant("whole"), fold="all"))
    assert [each["checkpoint"] for each in trainer.distiller.origin] == ["fold_all/checkpoint_final.pth"]


def test_student_of_fold_all_learns_from_five_folds(nnunet, variant, teacher_2d, tmp_path, monkeypatch):
    copy = shutil.copytree(teacher_2d.parent, tmp_path / "nnUNetTrainer__nnUNetPlans__2d")
    for fold in range(1, 5):
        shutil.copytree(copy / "fold_0", copy / f"fold_{fold}")
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(copy))
    trainer = _steps(make_trainer(nnunet, "nnUNetTrainerHLFD", variant("all"), fold="all"))
    assert [each["checkpoint"] for each in trainer.distiller.origin] == [
        f"fold_{fold}/checkpoint_final.pth" for fold in range(5)
    ]


def test_explicit_teacher_of_another_fold_is_warned_about_and_recorded(nnunet, variant, teacher_2d, monkeypatch):
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
    trainer = _steps(make_trainer(nnunet, "nnUNetTrainerHLFD", variant("foreign", teacher_fold=0), fold=1))
    assert "WARNING: the teacher may have seen this fold's validation cases" in trainer.describe()
    assert trainer.distiller.origin[0]["may_have_seen_validation_cases"]


def test_student_that_is_not_smaller_is_warned_about(nnunet, variant, teacher_2d, monkeypatch):
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
    trainer = _steps(make_trainer(nnunet, "nnUNetTrainerHLFD", variant("large", student="resnet18")))
    assert "WARNING: the student is not smaller than its teacher" in trainer.describe()


def test_the_teachers_decoder_teaches_attention(nnunet, variant, teacher_2d):
    terms = {}
    for source in ("encoder", "decoder"):
        plans = variant(f"features.{source}", base="nnUNetPlans_short", teacher_features=source)
        trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", plans)
        trainer.on_train_start()
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        terms[source] = trainer.train_step(next(trainer.dataloader_train))["terms"]
        assert ("of its decoder" in trainer.describe()) == (source == "decoder")
    changed = terms["encoder"] != terms["decoder"]
    assert changed.tolist() == [False, True, False, False, False], "ufd; ifd's late stage is the bottleneck here"


@pytest.mark.parametrize("configuration", ["2d", pytest.param("3d_fullres", marks=pytest.mark.slow)])
def test_unet_plus_plus_trains_predicts_is_exported_and_teaches(
    nnunet, variant, train, tmp_path, monkeypatch, configuration
):
    """Its checkpoint names its own trainer, so each of these needs nnUNet_extTrainer (set in these tests)."""
    trainer, plans = "nnUNetTrainerUNetPlusPlus", variant("short")
    fold = train(trainer, configuration=configuration, plans=plans)
    assert (fold / "validation/summary.json").is_file()
    assert load(fold / "checkpoint_final.pth")["trainer_name"] == trainer
    model = ("-d", "901", "-c", configuration, "-f", "0", "-tr", trainer, "-p", plans)
    command("nnUNetv2_export_model_to_zip", *model, "-o", tmp_path / "model.zip")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "installed"))
    command("nnUNetv2_install_pretrained_model_from_zip", tmp_path / "model.zip")
    output = tmp_path / "predicted"
    images = nnunet / "raw/Dataset901_Phantom/imagesTs"
    command("nnUNetv2_predict", *prediction(fold.parent, images, output))
    assert len(list(output.glob("*.nii.gz"))) == 1
    monkeypatch.setenv("nnUNet_results", str(nnunet / "results"))
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(fold.parent))
    student = make_trainer(nnunet, "nnUNetTrainerHLFD", variant("unetpp"), configuration=configuration)
    _steps(student)
    assert student.distiller.origin[0]["trainer"] == trainer
    assert student.distiller.teacher.networks[0].shape.taps.heads == (1,)
