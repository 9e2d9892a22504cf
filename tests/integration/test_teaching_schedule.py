"""When the teacher teaches: every k-th step, and until a share of the training; other steps are nnU-Net's own."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from helpers import assert_same, make_trainer, run_epoch, started, table


def count_teachings(trainer):
    """A list that grows with every batch that the teacher sees."""
    seen, ask = [], trainer.distiller.ask_teacher
    trainer.distiller.ask_teacher = lambda data: seen.append(trainer.current_epoch) or ask(data)
    return seen


def twin(nnunet, plans, trainer):
    """The student alone, with the weights and the optimizer's state of a distilled one."""
    alone = started(make_trainer(nnunet, "nnUNetTrainerStudent", plans))
    alone.network.load_state_dict(trainer.network.state_dict())
    adapters = len(trainer.optimizer.param_groups[1]["params"])
    state = deepcopy(trainer.optimizer.state_dict())  # loading shares the tensors
    state["param_groups"] = state["param_groups"][:1]
    number = len(state["param_groups"][0]["params"])
    state["state"] = {index: value for index, value in state["state"].items() if index < number}
    assert adapters
    alone.optimizer.load_state_dict(state)
    return alone


def assert_a_step_is_the_students_own(nnunet, plans, trainer, batch):
    """Weights, optimizer and loss as of nnUNetTrainerStudent; adapters and what is remembered of them stay."""
    alone = twin(nnunet, plans, trainer)
    adapters = {name: value.clone() for name, value in trainer.distiller.method.state_dict().items()}
    remembered = [deepcopy(trainer.optimizer.state[value]) for value in trainer.distiller.method.parameters()]
    output, expected = trainer.train_step(batch), alone.train_step(batch)
    assert output["loss"] == output["terms"][0] == expected["loss"]
    assert_same(dict(trainer.network.state_dict()), dict(alone.network.state_dict()))
    students = alone.optimizer.state_dict()["state"]
    own = trainer.optimizer.state_dict()["state"]
    assert_same({index: own[index] for index in students}, students)
    assert_same(dict(trainer.distiller.method.state_dict()), adapters)
    assert_same([trainer.optimizer.state[value] for value in trainer.distiller.method.parameters()], remembered)
    assert torch.tensor(output["terms"][1:]).isnan().all()


def test_every_third_step_is_taught_and_the_others_are_the_students_own(nnunet, variant, teacher_2d):
    plans = variant("third", base="nnUNetPlans_short", teach_every=3, num_iterations_per_epoch=5)
    trainer = started(make_trainer(nnunet, "nnUNetTrainerHLFD", plans))
    seen = count_teachings(trainer)
    for step in range(5):
        batch = next(trainer.dataloader_train)
        if step in (0, 3):
            assert (trainer.train_step(batch)["terms"] > 0).all()
        elif step == 1:
            assert_a_step_is_the_students_own(nnunet, plans, trainer, batch)
        else:
            trainer.train_step(batch)
    assert len(seen) == 2
    trainer.on_epoch_start()
    trainer.train_step(batch)
    assert len(seen) == 3, "an epoch starts with a step that is taught"


def test_a_k_above_the_epochs_steps_teaches_once_an_epoch_and_the_log_says_what_was_taught(nnunet, variant, teacher_2d):
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", variant("once", base="nnUNetPlans_short", teach_every=1000))
    trainer.on_train_start()
    seen, outputs = count_teachings(trainer), []
    step = trainer.train_step
    trainer.train_step = lambda batch: outputs.append(step(batch)) or outputs[-1]
    for _ in range(2):
        run_epoch(trainer)
    assert seen == [0, 1]
    rows = table(Path(trainer.output_folder) / "distillation_log.csv")
    for row, first, second in zip(rows, outputs[::2], outputs[1::2], strict=True):
        segmentation, *terms = first["terms"]
        assert float(row["segmentation"]) == pytest.approx((segmentation + second["loss"]) / 2)
        assert [float(row[name]) for name in ("ufd", "ifd", "upd", "ipd")] == pytest.approx(terms)
    losses = [trainer.logger.get_value("train_losses", step=epoch) for epoch in range(2)]
    assert losses == pytest.approx([(outputs[i]["loss"] + outputs[i + 1]["loss"]) / 2 for i in (0, 2)])


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_after_distill_until_the_step_is_the_students_own_and_the_teacher_rests(nnunet, variant, teacher_2d, decay):
    """Half of 4 epochs: 1, 1/2, then nothing."""
    plans = variant(f"fade.{decay}", base="nnUNetPlans_short", distill_until=0.5, distill_decay=decay, num_epochs=4)
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", plans)
    trainer.on_train_start()
    seen = count_teachings(trainer)
    for _ in range(3):
        run_epoch(trainer)
    assert seen == [0, 0, 1, 1]
    assert_a_step_is_the_students_own(nnunet, plans, trainer, next(trainer.dataloader_train))
    rows = table(Path(trainer.output_folder) / "distillation_log.csv")
    factors = [float(row["ufd_weighted"]) / float(row["ufd"]) for row in rows]
    assert factors == pytest.approx([0.9, 0.45, float("nan")], nan_ok=True)
    assert all(float(row["segmentation"]) > 0 for row in rows)
