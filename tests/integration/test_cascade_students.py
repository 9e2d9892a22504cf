"""3d_cascade_fullres: where its previous stage comes from, what teacher and student see of it, what is refused."""

import json
from pathlib import Path

import pytest
import torch
from helpers import PREDICT, assert_same, load, make_trainer, prediction, run_epoch, stock, train_once
from phantom_data import REGIONS_DATASET

from nnunetv2_hlfd.cli.main import main

DATASET, CASCADE = REGIONS_DATASET, "3d_cascade_fullres"  # that of the matrix' quick cell
TEACHER, STUDENT = "nnUNetTrainerTeacher", "nnUNetTrainerHLFD"


@pytest.fixture(scope="module")
def teacher(nnunet, variant, train):
    """Fold folder of a cascade teacher with nnU-Net's own convention: its own trainer's 3d_lowres came before it."""
    plans = variant("short", dataset=DATASET)
    train_once(nnunet, train, TEACHER, dataset=DATASET, plans=plans, configuration="3d_lowres", fold="all")
    return train_once(nnunet, train, TEACHER, dataset=DATASET, plans=plans, configuration=CASCADE)


@pytest.fixture(scope="module")
def student_lowres(nnunet, variant, train, teacher):
    """Plans name of a 3d_lowres student that was trained on all cases, and so predicts all for the next stage."""
    plans = variant("stages", dataset=DATASET, base="nnUNetPlans_short")
    train_once(nnunet, train, STUDENT, dataset=DATASET, plans=plans, configuration="3d_lowres", fold="all")
    return plans


def _trainer(nnunet, plans, **more):
    return make_trainer(nnunet, STUDENT, plans, dataset=DATASET, configuration=CASCADE, **more)


def _lowres(nnunet, trainer, plans):
    return nnunet / "results" / DATASET / f"{trainer}__{plans}__3d_lowres"


@pytest.mark.slow
def test_student_trains_on_its_own_lowres_student_and_predicts_without_this_package(
    nnunet, train, tmp_path, student_lowres
):
    """nnU-Net's own convention: a 3d_lowres model of the same trainer and plans."""
    predictions = _lowres(nnunet, STUDENT, student_lowres) / "predicted_next_stage" / CASCADE
    assert len(list(predictions.glob("*.b2nd"))) == 6
    fold = train(STUDENT, dataset=DATASET, plans=student_lowres, configuration=CASCADE)
    assert json.loads((fold / "distillation.json").read_text())["previous_stage"] == str(predictions)
    assert load(fold / "checkpoint_final.pth")["trainer_name"] == "nnUNetTrainer"
    images = nnunet / "raw" / DATASET / "imagesTs"
    for configuration, trained, more in (
        ("3d_lowres", "all", ()),
        (CASCADE, 0, ("-prev_stage_predictions", tmp_path / "3d_lowres")),
    ):
        model = fold.parents[1] / f"{STUDENT}__{student_lowres}__{configuration}"
        arguments = prediction(model, images, tmp_path / configuration, folds=[trained])
        stock(PREDICT, *arguments, "--disable_tta", *more)
        assert len(list((tmp_path / configuration).glob("*.nii.gz"))) == 1


@pytest.mark.slow
def test_teacher_and_student_see_the_same_previous_segmentation(nnunet, variant, teacher):
    lowres = _lowres(nnunet, TEACHER, "nnUNetPlans_short")
    trainer = _trainer(nnunet, variant("seen", dataset=DATASET, base="nnUNetPlans_short", previous_stage=lowres.name))
    assert trainer.folder_with_segs_from_previous_stage == str(lowres / "predicted_next_stage" / CASCADE)
    trainer.on_train_start()
    seen = {}
    [network] = trainer.distiller.teacher.networks
    network.network.encoder.register_forward_pre_hook(lambda _module, inputs: seen.update(teacher=inputs[0]))
    trainer.network.register_forward_pre_hook(lambda _module, inputs: seen.update(student=inputs[0]))
    trainer.train_step(next(trainer.dataloader_train))  # validation passes the teacher by
    assert torch.equal(seen["student"], seen["teacher"])
    image, previous = seen["student"][:, :1], seen["student"][:, 1:]
    assert previous.shape[1] == 2, "one channel for each foreground label"
    assert set(previous.unique().tolist()) <= {0.0, 1.0}
    assert len(image.unique()) > 2


@pytest.mark.slow
def test_interrupted_and_continued_student_equals_the_uninterrupted_one(nnunet, variant, teacher):
    """nnU-Net's augmentation of the previous segmentation shuffles its channels in place, batch after batch."""
    lowres = _lowres(nnunet, TEACHER, "nnUNetPlans_short").name
    settings = {"num_iterations_per_epoch": 4, "previous_stage": lowres, "augmentation": "paper"}
    plans = [
        variant(f"{name}.cascade", dataset=DATASET, base="nnUNetPlans_short", **settings) for name in ("whole", "parts")
    ]
    whole = _trainer(nnunet, plans[0])
    whole.run_training()
    first = _trainer(nnunet, plans[1])
    first.on_train_start()
    run_epoch(first)
    second = _trainer(nnunet, plans[1], continue_training=True)
    second.load_checkpoint(str(Path(first.output_folder) / "checkpoint_latest.pth"))
    second.run_training()
    expected, got = (load(Path(each.output_folder) / "checkpoint_final.pth") for each in (whole, second))
    for key in ("network_weights", "optimizer_state"):
        assert_same(got[key], expected[key])
    assert second.folder_with_segs_from_previous_stage == whole.folder_with_segs_from_previous_stage


# What is refused, before anything is trained


def _dry_run(plans, capsys):
    code = main(["train", DATASET, CASCADE, "0", "-tr", STUDENT, "-p", plans, "-device", "cpu", "--dry_run"])
    return code, capsys.readouterr()


@pytest.mark.slow
def test_a_dry_run_of_a_cascade_says_what_it_says_of_every_student(nnunet, variant, teacher, capsys):
    lowres = _lowres(nnunet, TEACHER, "nnUNetPlans_short").name
    code, output = _dry_run(
        variant("dry.cascade", dataset=DATASET, base="nnUNetPlans_short", previous_stage=lowres), capsys
    )
    assert code == 0, output.err
    assert f"Previous stage: {nnunet}/results/{DATASET}/{lowres}/predicted_next_stage/{CASCADE}" in output.out
    assert "Dry run: nothing was trained or written." in output.out


def test_missing_predictions_of_the_previous_stage_are_answered_with_the_command_that_makes_them(
    nnunet, variant, capsys
):
    plans = variant("early", dataset=DATASET)
    code, output = _dry_run(plans, capsys)
    assert code == 2
    folder = _lowres(nnunet, STUDENT, plans) / "predicted_next_stage" / CASCADE
    assert f"Expected predictions of the previous stage in {folder}, found none for case_000, " in output.err
    assert f"nnUNetv2_train {DATASET} 3d_lowres F -tr {STUDENT} -p {plans} (a trained one: the same with --val)" in (
        output.err
    )
    assert "nnUNetv2_hlfd plan -previous_stage TRAINER__PLANS__3d_lowres ..." in output.err
    assert not folder.parent.parent.exists()


def test_another_previous_stage_that_is_named_and_missing_is_the_one_in_the_command(nnunet, variant, capsys):
    code, output = _dry_run(
        variant("named", dataset=DATASET, previous_stage="nnUNetTrainer__nnUNetPlans__3d_lowres"), capsys
    )
    assert code == 2
    assert f"nnUNetv2_train {DATASET} 3d_lowres F -tr nnUNetTrainer -p nnUNetPlans (a trained" in output.err


def test_a_validation_alone_needs_the_predictions_of_its_own_cases(nnunet, variant, teacher, monkeypatch):
    """`--val` does not start a training; nnU-Net would end in a traceback of its file format."""
    trainer = _trainer(nnunet, variant("val.cascade", dataset=DATASET, base="nnUNetPlans_short"))
    trainer.initialize()
    with pytest.raises(ValueError, match="Expected predictions of the previous stage in") as caught:
        trainer.perform_actual_validation()
    validation = trainer.do_split()[1]
    assert f"found none for {', '.join(sorted(validation))}. Each fold" in str(caught.value)
