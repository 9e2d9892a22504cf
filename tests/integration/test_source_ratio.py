"""Baselines in their source's ratio, in real trainings."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import make_trainer, run_epoch, started, table
from torch.nn import functional


def test_the_gradient_of_a_step_keeps_the_sources_ratio(nnunet, variant, teacher_2d):
    """At the final logits, against the cross entropy of the same step; the log tells the ratio apart from the terms."""
    trainer = started(make_trainer(nnunet, "nnUNetTrainerKD", variant("ratio.one", base="nnUNetPlans_short")))
    batch = next(trainer.dataloader_train)
    student = trainer.distiller.run_student(trainer.network, batch["data"])
    terms = trainer.distiller.terms(student, trainer.distiller.ask_teacher(batch["data"]), batch["target"][0])
    logits, labels = student.logits[0], batch["target"][0]
    ratio = trainer.distiller.ratios(student, labels)["kd"]

    def norm(loss):
        return torch.autograd.grad(loss, logits, retain_graph=True)[0].norm()

    segmentation, source = trainer.loss.loss(logits, labels), functional.cross_entropy(logits, labels[:, 0].long())
    torch.testing.assert_close(
        norm(ratio * terms["kd"]) / norm(segmentation), norm(terms["kd"]) / norm(source), rtol=1e-4, atol=0
    )
    output = trainer.train_step(batch)
    np.testing.assert_allclose(output["ratios"], [ratio.item()], rtol=1e-5)
    whole, kd = output["terms"]
    assert output["loss"] == pytest.approx(whole + ratio.item() * kd, rel=1e-5)


def test_the_log_has_the_ratio_and_what_it_makes_of_the_weight(nnunet, variant, teacher_2d):
    """Of the steps that are taught; HLFD's terms beside KD's keep the weights of Eq. 5."""
    plans = variant(
        "ratio.log", base="nnUNetPlans_short", weights={"KD": 0.5}, teach_every=2, num_iterations_per_epoch=3
    )
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", plans)
    trainer.on_train_start()
    outputs, step = [], trainer.train_step
    trainer.train_step = lambda batch: outputs.append(step(batch)) or outputs[-1]
    run_epoch(trainer)
    [row] = table(Path(trainer.output_folder) / "distillation_log.csv")
    assert [name for name in row if name.endswith("_ratio")] == ["kd_ratio"]
    ratios = [output["ratios"].item() for output in outputs]
    assert np.isfinite(ratios).tolist() == [True, False, True]
    assert float(row["kd_ratio"]) == pytest.approx(np.nanmean(ratios))
    kd = [output["terms"][-1] for output in outputs]
    assert float(row["kd_weighted"]) == pytest.approx(0.5 * np.nanmean(np.multiply(ratios, kd)))
    assert float(row["ufd_weighted"]) == pytest.approx(0.9 * float(row["ufd"]))


def test_the_sources_number_is_a_setting_away(nnunet, variant, teacher_2d):
    plans = variant("ratio.off", base="nnUNetPlans_short", source_ratio=False)
    trainer = started(make_trainer(nnunet, "nnUNetTrainerKD", plans))
    output = trainer.train_step(next(trainer.dataloader_train))
    assert output["ratios"].size == 0
    assert output["loss"] == pytest.approx(output["terms"].sum())


@pytest.mark.parametrize(("name", "converted"), [("SKD", ["skd_pixel", "skd_pair"]), ("EMKD", []), ("HLFD", [])])
def test_only_terms_of_another_loss_are_converted(nnunet, variant, teacher_2d, name, converted):
    trainer = make_trainer(nnunet, f"nnUNetTrainer{name}", variant("short"))
    trainer.initialize()
    assert trainer.distiller.log.ratio_terms == converted
    weights = trainer.distiller.method.weights
    assert name != "SKD" or weights == {"skd_pixel": 80.0, "skd_pair": 1.0}


def test_beside_nnunets_loss_the_papers_loss_is_another_one(nnunet, variant, teacher_2d):
    plans = variant("ratio.nnunet", base="nnUNetPlans_short", recipe="nnunet")
    trainer = started(make_trainer(nnunet, "nnUNetTrainerEMKD", plans))
    output = trainer.train_step(next(trainer.dataloader_train))
    assert (output["ratios"] > 1).all(), "cross entropy and Dice count fully, not half each"
