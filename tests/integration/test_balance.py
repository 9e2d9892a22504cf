"""Balanced gradients in real trainings: nothing to balance is nnU-Net's step; resumed trainings; what is logged."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_same, load, make_trainer, run_epoch, started, table

PARTS = ["encoder.stem", "encoder.stages.0", "encoder.stages.1", "encoder.stages.2", "encoder.stages.3", "decoder"]


@pytest.fixture(scope="module")
def alone(nnunet, variant):
    """The student alone after two steps."""
    return two_steps(make_trainer(nnunet, "nnUNetTrainerStudent", variant("short")))


def two_steps(trainer):
    started(trainer)
    for _ in range(2):
        trainer.train_step(next(trainer.dataloader_train))
    return trainer


def state(trainer):
    """Weights, and what the optimizer remembers."""
    optimizer = trainer.optimizer.state_dict()
    return dict(trainer.network.state_dict()), {
        index: optimizer["state"][index] for index in sorted(optimizer["state"])
    }


@pytest.mark.parametrize("choice", ["none", "cap", "gate", "project"])
def test_weight_zero_equals_the_student_alone_bit_for_bit(nnunet, variant, teacher_2d, alone, choice):
    plans = variant(f"nothing.{choice}", base="nnUNetPlans_short", balance=choice, beta=0, **{"lambda": 0})
    assert_same(state(two_steps(make_trainer(nnunet, "nnUNetTrainerHLFD", plans))), state(alone))


def test_none_is_one_backward_pass_of_the_sum_bit_for_bit(nnunet, variant, teacher_2d):
    """Written out as it was before there was a choice."""
    plans = variant("plain", base="nnUNetPlans_short", teach_every=1)
    trainer, written_out = (started(make_trainer(nnunet, "nnUNetTrainerHLFD", plans)) for _ in range(2))
    distiller = written_out.distiller
    for _ in range(2):
        batch = next(trainer.dataloader_train)
        trainer.train_step(batch)
        written_out.optimizer.zero_grad(set_to_none=True)
        student = distiller.run_student(written_out.network, batch["data"])
        total = written_out.loss(student.logits, batch["target"])
        terms = distiller.method(student, distiller.ask_teacher(batch["data"]), batch["target"][0])
        for name, weight in (("ufd", 0.9), ("ifd", 0.9), ("upd", 0.1), ("ipd", 0.1)):
            total = total + weight * terms[name]
        total.backward()
        torch.nn.utils.clip_grad_norm_(written_out.network.parameters(), 12)
        torch.nn.utils.clip_grad_norm_(distiller.method.parameters(), 12)
        written_out.optimizer.step()
    assert_same(state(trainer), state(written_out))
    assert_same(dict(trainer.distiller.method.state_dict()), dict(distiller.method.state_dict()))


@pytest.fixture(scope="module")
def runs(nnunet, variant, teacher_2d):
    """The same training in one go and in two parts: HLFD projected, soft labels beside it, every third step taught."""
    settings = {
        "balance": "project",
        "balance_ratio": 0.2,
        "teach_every": 3,
        "num_iterations_per_epoch": 4,
        "weights": {"SoftLabel": 0.8},
        "warmup_epochs": 1,
    }
    plans = [variant(f"balanced.{name}", base="nnUNetPlans_short", **settings) for name in ("whole", "parts")]
    whole = make_trainer(nnunet, "nnUNetTrainerHLFD", plans[0])
    whole.run_training()
    first = make_trainer(nnunet, "nnUNetTrainerHLFD", plans[1])
    first.on_train_start()
    run_epoch(first)
    second = make_trainer(nnunet, "nnUNetTrainerHLFD", plans[1], continue_training=True)
    second.load_checkpoint(str(Path(first.output_folder) / "checkpoint_latest.pth"))
    second.run_training()
    return [Path(trainer.output_folder) for trainer in (whole, second)]


def test_interrupted_and_continued_run_equals_the_uninterrupted_one(runs):
    expected, got = (load(folder / "checkpoint_final.pth") for folder in runs)
    for key in ("network_weights", "optimizer_state"):
        assert_same(got[key], expected[key])
    assert_same(got["hlfd"]["adapters"], expected["hlfd"]["adapters"])
    for name in ("distillation_log.csv", "distillation_balance.csv"):
        assert table(runs[1] / name) == table(runs[0] / name)


def test_shares_are_logged_term_by_term_and_part_by_part(runs):
    """Soft labels are a part of the segmentation loss, against which HLFD's terms are balanced: they have no share."""
    rows = table(runs[0] / "distillation_log.csv")
    terms = ["ufd", "ifd", "upd", "ipd", "soft_label"]
    weighted = [column for term in terms for column in (term, f"{term}_weighted")]
    assert list(rows[0]) == ["epoch", "segmentation", *weighted, *(f"{term}_share" for term in terms)]
    for row, ramp in zip(rows, (0.5, 1), strict=True):
        assert all(0 < float(row[f"{term}_share"]) <= 1 for term in terms[:-1])
        assert row["soft_label_share"] == "nan"
        assert float(row["soft_label_weighted"]) == pytest.approx(ramp * 0.4 * float(row["soft_label"]))
    balance = table(runs[0] / "distillation_balance.csv")
    keys = [(int(row["epoch"]), row["part"], row["term"]) for row in balance]
    assert keys == [(epoch, part, term) for epoch in range(2) for part in PARTS for term in terms[:-1]]
    # heads on the encoder: no term of HLFD reaches the decoder, and ufd reaches no stage behind the early one
    reached = {(part, term) for _, part, term in keys} - {
        (row["part"], row["term"]) for row in balance if row["share"] == "nan"
    }
    assert {part for part, _ in reached} == set(PARTS[:-1])
    assert {part for part, term in reached if term == "ufd"} == set(PARTS[:3])
    for row in balance:
        if (row["part"], row["term"]) in reached:
            assert 0 < float(row["share"]) <= 1
            assert float(row["ratio"]) > 0
            assert -1 <= float(row["cosine"]) <= 1
    for row in rows:
        own = [float(one["share"]) for one in balance if (one["epoch"], one["term"]) == (row["epoch"], "ifd")]
        assert float(row["ifd_share"]) == pytest.approx(np.nanmean(own), rel=1e-5)
