"""Laws of distillation in real nnU-Net trainings: zero weights, gradients, fairness, non-finite losses."""

import csv

import numpy as np
import pytest
import torch
from helpers import assert_same, load, make_trainer


@pytest.mark.parametrize("configuration", ["2d", pytest.param("3d_fullres", marks=pytest.mark.slow)])
def test_zero_weights_equal_the_student_alone_bit_for_bit(request, nnunet, variant, configuration):
    """With beta = lambda = 0 the teacher is loaded and every term computed, yet the student is the undistilled one."""
    request.getfixturevalue("teacher_2d" if configuration == "2d" else "teacher_3d")
    plans = variant("zero", beta=0, **{"lambda": 0}, base="nnUNetPlans_short")
    teacher = nnunet / f"results/Dataset901_Phantom/nnUNetTrainerTeacher__nnUNetPlans_short__{configuration}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_hlfd_teacher", str(teacher))
        folders = []
        for name in ("nnUNetTrainerHLFD", "nnUNetTrainerStudent"):
            trainer = make_trainer(nnunet, name, plans, configuration=configuration)
            trainer.run_training()
            folders.append(trainer.output_folder)
    distilled, alone = (load(_path(folder, "checkpoint_final.pth")) for folder in folders)
    assert_same(distilled["network_weights"], alone["network_weights"])
    states = [each["optimizer_state"]["state"] for each in (distilled, alone)]
    assert_same(*states)
    rows = _log(folders[0])
    assert len(rows) == 2
    for term in ("ufd", "ifd", "upd", "ipd"):
        assert float(rows[-1][term]) > 0
        assert float(rows[-1][f"{term}_weighted"]) == 0


def test_teacher_gets_no_gradient_and_keeps_its_buffers_and_every_adapter_learns(nnunet, variant, teacher_2d):
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", variant("short"))
    trainer.on_train_start()
    [teacher] = trainer.distiller.teacher.networks
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    adapters = {name: value.detach().clone() for name, value in trainer.distiller.method.named_parameters()}
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    trainer.train_step(next(trainer.dataloader_train))
    assert not teacher.network.training
    assert all(each.grad is None and not each.requires_grad for each in teacher.network.parameters())
    assert_same(dict(teacher.network.state_dict()), before)
    assert len(adapters) == 2 * 3  # weight and bias of a head on the stem and each of two mids
    for name, value in trainer.distiller.method.named_parameters():
        assert value.grad is not None, name
        assert value.grad.abs().sum() > 0, name
        assert not torch.equal(value, adapters[name]), name
    for name, value in trainer.network.named_parameters():
        if "seg_layers.0" not in name:  # nnU-Net gives the deepest output loss weight 0
            assert value.grad is not None, name


def test_methods_start_from_the_same_student_and_see_the_same_batches(nnunet, variant, teacher_2d):
    """For one seed a distilled student differs from the student alone by its loss only."""
    starts, batches = [], []
    for name in ("nnUNetTrainerStudent", "nnUNetTrainerHLFD"):
        trainer = make_trainer(nnunet, name, variant("short"))
        trainer.on_train_start()
        starts.append({key: value.clone() for key, value in trainer.network.state_dict().items()})
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        first = next(trainer.dataloader_train)
        trainer.train_step(first)
        batches.append([first["data"], next(trainer.dataloader_train)["data"]])
    assert_same(*starts)
    assert_same(*batches)


def test_unset_seed_is_drawn_once_and_recorded(nnunet, variant, teacher_2d):
    trainers = [make_trainer(nnunet, "nnUNetTrainerStudent", variant("unseeded", seed=None)) for _ in range(2)]
    for each in trainers:
        each.initialize()
    assert trainers[0].seed != trainers[1].seed
    trainers[0].run_training()
    checkpoint = load(_path(trainers[0].output_folder, "checkpoint_final.pth"))
    assert checkpoint["hlfd"]["settings"]["seed"] == trainers[0].seed


@pytest.mark.parametrize("term", ["segmentation", "ufd", "ipd"])
def test_non_finite_loss_stops_training_and_names_term_and_epoch(nnunet, variant, teacher_2d, term):
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", variant("short"))
    trainer.on_train_start()
    trainer.current_epoch = 7
    batch = next(trainer.dataloader_train)
    if term == "segmentation":
        trainer.loss = lambda logits, target: logits[0].sum() * float("nan")
    else:
        terms = trainer.distiller.method.forward
        trainer.distiller.method.forward = lambda *inputs: {**terms(*inputs), term: torch.tensor(float("inf"))}
    with pytest.raises(ValueError, match=rf"(loss|{term})' became (nan|inf) in epoch 7.*Lower the setting initial_lr"):
        trainer.train_step(batch)


def test_non_finite_loss_of_the_student_alone_stops_too(nnunet, variant):
    trainer = make_trainer(nnunet, "nnUNetTrainerStudent", variant("short"))
    trainer.on_train_start()
    batch = next(trainer.dataloader_train)
    batch["data"] = torch.full_like(batch["data"], float("nan"))
    with pytest.raises(ValueError, match="loss term 'segmentation' became nan in epoch 0"):
        trainer.train_step(batch)


def test_inf_gradient_under_grad_scaler_is_a_skipped_step_not_an_error(nnunet, variant, teacher_2d):
    """A too large scale overflows; GradScaler skips the step for student and adapters and lowers its scale."""
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", variant("short"))
    trainer.on_train_start()
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    loss = trainer.loss
    trainer.loss = lambda logits, target: 1e3 * loss(logits, target)
    before = [each.detach().clone() for group in trainer.optimizer.param_groups for each in group["params"]]
    trainer.train_step(next(trainer.dataloader_train))
    after = [each for group in trainer.optimizer.param_groups for each in group["params"]]
    assert_same(before, [each.detach() for each in after])
    assert trainer.grad_scaler.get_scale() < 2.0**127


def test_warmup_ramps_the_weights_linearly(nnunet, variant, teacher_2d):
    plans = variant("warm", warmup_epochs=3, base="nnUNetPlans_short")
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", plans)
    trainer.initialize()
    ramps = []
    for trainer.current_epoch in range(5):
        ramps.append(trainer._ramp())
    np.testing.assert_allclose(ramps, [0.25, 0.5, 0.75, 1, 1])


@pytest.mark.parametrize(("trainer", "zero"), [("noFeature", "beta"), ("noPixel", "lambda")])
def test_half_trainers_switch_off_one_half_of_equation_5(nnunet, variant, teacher_2d, trainer, zero):
    built = make_trainer(nnunet, f"nnUNetTrainerHLFD_{trainer}", variant("short"))
    built.initialize()
    weights = built.distiller.method.weights
    assert weights["ufd"] == weights["ifd"] == (0 if zero == "beta" else 0.9)
    assert weights["upd"] == weights["ipd"] == (0 if zero == "lambda" else 0.1)


def test_augmentation_paper_keeps_rotation_and_mirroring_only(nnunet, variant):
    trainer = make_trainer(nnunet, "nnUNetTrainerStudent", variant("flips", augmentation="paper"))
    trainer.initialize()
    loader, _ = trainer.get_dataloaders()
    transforms = loader.data_loader.transforms.transforms
    names = [type(each).__name__ for each in transforms]
    assert "RandomTransform" not in names
    assert {"SpatialTransform", "MirrorTransform"} <= set(names)
    [spatial] = [each for each in transforms if type(each).__name__ == "SpatialTransform"]
    assert spatial.p_scaling == 0
    assert spatial.p_rotation > 0


def _path(folder, name):
    from pathlib import Path

    return Path(folder) / name


def _log(folder):
    with _path(folder, "distillation_log.csv").open() as file:
        return list(csv.DictReader(file))
