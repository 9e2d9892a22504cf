"""Every method keeps the laws that HLFD keeps, in real nnU-Net trainings; methods combine; strangers' are found."""

import csv
import json
from functools import cache
from pathlib import Path

import pytest
import torch
from helpers import assert_same, load, make_trainer, run_epoch

from nnunetv2_hlfd.distillation.registry import METHODS
from nnunetv2_hlfd.training.student_trainer import nnUNetTrainerStudent

REGIONS = "Dataset902_PhantomRegionsIgnore"


@pytest.fixture(scope="module")
def teachers(nnunet, variant, train, teacher_2d, teacher_3d):
    """Trained teachers of both data sets and both configurations, under plans of the name nnUNetPlans_short."""
    plans = variant("short", dataset=REGIONS)
    for configuration in ("2d", "3d_fullres"):
        train("nnUNetTrainerTeacher", dataset=REGIONS, plans=plans, configuration=configuration)


@pytest.fixture(scope="module")
def alone(nnunet, variant):
    """Checkpoint of the student alone, which a method with weight 0 has to equal."""

    @cache
    def checkpoint(configuration):
        plans = variant("alone", num_epochs=1)
        trainer = make_trainer(nnunet, "nnUNetTrainerStudent", plans, configuration=configuration)
        trainer.run_training()
        return load(Path(trainer.output_folder) / "checkpoint_final.pth")

    return checkpoint


@pytest.mark.parametrize("configuration", ["2d", pytest.param("3d_fullres", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", METHODS)
def test_weight_zero_equals_the_student_alone_bit_for_bit(nnunet, variant, teachers, alone, method, configuration):
    """So every method starts from the same student and sees the same batches."""
    name = f"zero.{method}".replace("_", ".")
    plans = variant(name, weights={method: 0}, num_epochs=1, base="nnUNetPlans_short")
    trainer = make_trainer(nnunet, f"nnUNetTrainer{method}", plans, configuration=configuration)
    trainer.run_training()
    checkpoint = load(Path(trainer.output_folder) / "checkpoint_final.pth")
    expected = alone(configuration)
    assert_same(checkpoint["network_weights"], expected["network_weights"])
    states = [each["optimizer_state"]["state"] for each in (checkpoint, expected)]
    assert_same(*states)
    last = _log(trainer)[-1]
    for term in trainer.distiller.method.weights:
        assert float(last[term]) > 0, term
        assert float(last[f"{term}_weighted"]) == 0, term


@pytest.mark.parametrize(
    ("dataset", "configuration", "distill_ignored"),
    [
        pytest.param("Dataset901_Phantom", "2d", True, id="labels-2d", marks=pytest.mark.slow),
        pytest.param(REGIONS, "2d", False, id="regions-ignore-2d-masked"),
        pytest.param(REGIONS, "3d_fullres", True, id="regions-ignore-3d"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_trains_student_and_adapters_and_leaves_the_teacher(
    nnunet, variant, teachers, method, dataset, configuration, distill_ignored
):
    plans = variant(
        f"step{distill_ignored}", dataset=dataset, base="nnUNetPlans_short", distill_ignored=distill_ignored
    )
    trainer = make_trainer(nnunet, f"nnUNetTrainer{method}", plans, dataset=dataset, configuration=configuration)
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    [teacher] = trainer.distiller.teacher.networks
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    start = {name: value.clone() for name, value in trainer.distiller.method.state_dict().items()}
    terms = trainer.train_step(next(trainer.dataloader_train))["terms"][1:]
    assert len(terms) == len(trainer.distiller.method.weights)
    assert (terms > 0).all()
    assert_same(dict(teacher.network.state_dict()), before)
    assert all(each.grad is None for each in teacher.network.parameters())
    for name, value in trainer.distiller.method.named_parameters():
        taught = method != "HLFD_noPixel"  # its heads belong to the half that has weight 0
        assert (value.grad is not None) == taught, name
        assert torch.equal(value, start[name]) != taught, name
    learned = {id(each) for group in trainer.optimizer.param_groups for each in group["params"]}
    assert {id(each) for each in trainer.distiller.method.parameters()} <= learned


@pytest.mark.parametrize(
    "method", [each if each == "FitNet" else pytest.param(each, marks=pytest.mark.slow) for each in METHODS]
)
def test_interrupted_and_continued_run_equals_the_uninterrupted_one(nnunet, variant, teachers, method):
    """Adapters come back with their optimizer's state: the second epoch is the same."""
    plans = [variant(f"{name}.{method}".replace("_", "."), base="nnUNetPlans_short") for name in ("whole", "parts")]
    whole = make_trainer(nnunet, f"nnUNetTrainer{method}", plans[0])
    whole.run_training()
    first = make_trainer(nnunet, f"nnUNetTrainer{method}", plans[1])
    first.on_train_start()
    run_epoch(first)
    latest = Path(first.output_folder) / "checkpoint_latest.pth"
    second = make_trainer(nnunet, f"nnUNetTrainer{method}", plans[1], continue_training=True)
    second.load_checkpoint(str(latest))
    assert second.current_epoch == 1
    second.run_training()
    expected, got = (load(Path(each.output_folder) / "checkpoint_final.pth") for each in (whole, second))
    for key in ("network_weights", "optimizer_state"):
        assert_same(got[key], expected[key])
    assert_same(got["hlfd"]["adapters"], expected["hlfd"]["adapters"])
    assert _log(second) == _log(whole)


def test_methods_combine_by_their_weights(nnunet, variant, teachers):
    settings = {"weights": {"KD": 0.5, "FitNet": 0.1}, "source_ratio": False}
    plans = variant("combined", base="nnUNetPlans_short", **settings)
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", plans)
    trainer.run_training()
    assert trainer.distiller.method.weights == {
        "ufd": 0.9,
        "ifd": 0.9,
        "upd": 0.1,
        "ipd": 0.1,
        "kd": 0.5,
        "fitnet": 1.0,
    }
    row = _log(trainer)[-1]
    for term, weight in trainer.distiller.method.weights.items():
        assert float(row[f"{term}_weighted"]) == pytest.approx(weight * float(row[term]), rel=1e-4)
    checkpoint = load(Path(trainer.output_folder) / "checkpoint_final.pth")
    assert any(name.startswith("methods.FitNet.regressors") for name in checkpoint["hlfd"]["adapters"])
    record = json.loads((Path(trainer.output_folder) / "distillation.json").read_text())
    assert record["method"] == {"title": "HLFD + KD + FitNet", "weights": trainer.distiller.method.weights}
    assert "late, hint" in trainer.distiller.tap_table(trainer.configuration_manager.patch_size)


def test_an_added_method_keeps_its_own_default_which_is_told(nnunet, variant, teachers):
    """AT has p = 2, also beside HLFD with p = 1. Given explicitly it is nobody's default."""
    weights = {"AT": 1.0}
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", variant("p.own", weights=weights, base="nnUNetPlans_short"))
    trainer.check_start()
    exponents = {name: each.settings.attention_exponent for name, each in trainer.distiller.method.methods.items()}
    assert exponents == {"HLFD": 1.0, "AT": 2.0}
    assert "AT keeps its own default: attention_exponent 2.0" in trainer.describe()
    plans = variant("p.three", weights=weights, attention_exponent=3.0, base="nnUNetPlans_short")
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", plans)
    trainer.check_start()
    exponents = {name: each.settings.attention_exponent for name, each in trainer.distiller.method.methods.items()}
    assert exponents == {"HLFD": 3.0, "AT": 3.0}
    assert "keeps its own default" not in trainer.describe()


def test_an_unknown_method_in_the_weights_is_refused_with_the_nearest_name(nnunet, variant, teachers):
    plans = variant("misspelled", weights={"FitNets": 1}, base="nnUNetPlans_short")
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", plans)
    with pytest.raises(
        ValueError, match=r"Unknown method or term 'FitNets' in the setting weights\. Did you mean 'FitNet'\?"
    ):
        trainer.run_training()


def test_the_student_alone_needs_no_teacher_whatever_the_weights(nnunet, variant):
    trainer = make_trainer(nnunet, "nnUNetTrainerStudent", variant("weightless", weights={"KD": 1}))
    assert isinstance(trainer, nnUNetTrainerStudent)
    trainer.initialize()
    assert not hasattr(trainer, "method")


def _log(trainer):
    with (Path(trainer.output_folder) / "distillation_log.csv").open() as file:
        return list(csv.DictReader(file))
