"""Students that start with their teacher's weights: alone and distilled, resumed, recorded."""

import json
from pathlib import Path

import pytest
import torch
from helpers import assert_same, load, make_trainer, run_epoch, started

from nnunetv2_hlfd.networks.inherit import inherit_weights


@pytest.fixture(scope="module")
def plans(variant, teacher_2d):
    return variant("inherited", base="nnUNetPlans_short", student="unet_w2", initial_weights="teacher")


def weights(trainer):
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def test_alone_and_distilled_start_with_the_same_weights_of_the_teacher(nnunet, variant, plans):
    random = make_trainer(nnunet, "nnUNetTrainerStudent", variant("drawn", base="nnUNetPlans_short", student="unet_w2"))
    alone, distilled = (make_trainer(nnunet, name, plans) for name in ("nnUNetTrainerStudent", "nnUNetTrainerKD"))
    batches = [next(started(trainer).dataloader_train) for trainer in (random, alone, distilled)]
    expected = random.network
    assert not torch.equal(expected.decoder.seg_layers[-1].weight, alone.network.decoder.seg_layers[-1].weight)
    inherit_weights(expected, alone.load_teacher().networks[0].network, "unet_w2")
    for trainer, batch in zip((alone, distilled), batches[1:], strict=True):
        assert_same(weights(trainer), weights(random))
        assert_same(batch["data"], batches[0]["data"])
        assert_same(batch["target"], batches[0]["target"])
        record = json.loads((Path(trainer.output_folder) / "distillation.json").read_text())
        assert record["initial_weights"]["sha256"] == distilled.distiller.origin[0]["sha256"]
        trainer.train_step(batch)
    assert not torch.equal(alone.network.decoder.seg_layers[-1].weight, random.network.decoder.seg_layers[-1].weight)


@pytest.mark.parametrize("name", ["nnUNetTrainerStudent", "nnUNetTrainerKD"])
def test_a_continued_run_goes_on_with_its_own_weights_and_equals_the_uninterrupted_one(nnunet, variant, plans, name):
    both = [
        variant(f"inherited.{part}", base="nnUNetPlans_short", student="unet_w2", initial_weights="teacher")
        for part in ("whole", "parts")
    ]
    whole, first = (make_trainer(nnunet, name, each) for each in both)
    whole.run_training()
    first.on_train_start()
    run_epoch(first)
    second = make_trainer(nnunet, name, both[1], continue_training=True)
    second.load_checkpoint(str(Path(first.output_folder) / "checkpoint_latest.pth"))
    assert_same(weights(second), weights(first))
    second.run_training()
    expected, got = (load(Path(trainer.output_folder) / "checkpoint_final.pth") for trainer in (whole, second))
    for key in ("network_weights", "optimizer_state"):
        assert_same(got[key], expected[key])
    assert got["hlfd"]["initial_weights"] == expected["hlfd"]["initial_weights"]


def test_a_student_of_another_topology_is_refused(nnunet, variant, plans):
    trainer = make_trainer(
        nnunet, "nnUNetTrainerKD", variant("inherited.not", base="nnUNetPlans_short", initial_weights="teacher")
    )
    with pytest.raises(
        ValueError, match=r"initial_weights=teacher needs a student of the teacher's topology .*resnet18_w8"
    ):
        trainer.check_start()
