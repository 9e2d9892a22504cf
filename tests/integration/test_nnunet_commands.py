"""What follows a training in nnU-Net pipelines: npz, pretrained weights, best configuration, ensemble, zip, W&B.

Each through nnU-Net's own command; those that a host without this package runs, without it.
"""

import json
import os
import shutil
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from helpers import PREDICT, command, load, make_trainer, prediction, run_epoch, stock

from nnunetv2_hlfd.cli.main import main

DATASET, STUDENT, TEACHER = "Dataset901_Phantom", "nnUNetTrainerHLFD", "nnUNetTrainerTeacher"
PLANS = "nnUNetPlans_piped"


@pytest.fixture(scope="module")
def pair(nnunet, variant, train):
    """Fold folders of teacher and student of the same plans, both trained with --npz."""
    assert variant("piped") == PLANS
    return [train(trainer, plans=PLANS, export_validation_probabilities=True) for trainer in (TEACHER, STUDENT)]


@pytest.fixture(scope="module")
def student(nnunet, variant, teacher_2d):
    """Checkpoint of a student of `teacher_2d`, trained without the final validation."""
    trainer = make_trainer(nnunet, STUDENT, variant("given", base="nnUNetPlans_short"))
    trainer.run_training()
    return Path(trainer.output_folder) / "checkpoint_final.pth"


@pytest.fixture
def results(nnunet, pair, tmp_path, monkeypatch):
    """A results folder of the test's own with both models."""
    for fold in pair:
        shutil.copytree(fold.parent, tmp_path / "results" / DATASET / fold.parent.name)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    return tmp_path / "results"


def _predict(nnunet, trainer, output, *more):
    model = nnunet / "results" / DATASET / f"{trainer}__{PLANS}__2d"
    images = nnunet / "raw" / DATASET / "imagesTs"
    stock(PREDICT, *prediction(model, images, output), "--disable_tta", *more)
    [labels] = output.glob("*.nii.gz")
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(labels)))


# Probabilities, best configuration and ensemble


@pytest.mark.slow
def test_npz_keeps_the_probabilities_of_the_validation(pair):
    _, student = pair
    for segmentation in (student / "validation").glob("*.nii.gz"):
        name = segmentation.name.removesuffix(".nii.gz")
        probabilities = np.load(student / "validation" / f"{name}.npz")["probabilities"]
        labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(segmentation)))
        np.testing.assert_array_equal(probabilities.argmax(0), labels)
        np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-2)


@pytest.mark.slow
def test_find_best_configuration_compares_teacher_student_and_their_ensemble(results):
    stock(
        "nnunetv2.evaluation.find_best_configuration:find_best_configuration_entry_point",
        DATASET,
        "-p",
        PLANS,
        "-c",
        "2d",
        "-tr",
        TEACHER,
        STUDENT,
        "-f",
        0,
        "-np",
        1,
    )
    information = json.loads((results / DATASET / "inference_information.json").read_text())
    models = {f"{trainer}__{PLANS}__2d" for trainer in (TEACHER, STUDENT)}
    [ensemble] = set(information["all_results"]) - models
    assert ensemble.startswith("ensemble___")
    for model in models:
        assert model in ensemble
        assert model in information["all_results"]


@pytest.mark.slow
def test_ensemble_of_teacher_and_student_is_the_mean_of_their_probabilities(nnunet, results, tmp_path):
    for trainer in (TEACHER, STUDENT):
        _predict(nnunet, trainer, tmp_path / trainer, "--save_probabilities")
    stock(
        "nnunetv2.ensembling.ensemble:entry_point_ensemble_folders",
        "-i",
        tmp_path / TEACHER,
        tmp_path / STUDENT,
        "-o",
        tmp_path / "both",
        "-np",
        1,
    )
    [ensemble] = (tmp_path / "both").glob("*.nii.gz")
    maps = [np.load(next((tmp_path / each).glob("*.npz")))["probabilities"] for each in (TEACHER, STUDENT)]
    labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(ensemble)))
    np.testing.assert_array_equal(labels, np.mean(maps, axis=0).argmax(0))


# From one machine to another


@pytest.mark.slow
def test_exported_student_is_installed_and_predicts_without_this_package(nnunet, results, tmp_path):
    expected = _predict(nnunet, STUDENT, tmp_path / "before")
    stock(
        "nnunetv2.model_sharing.entry_points:export_pretrained_model_entry",
        "-d",
        DATASET,
        "-o",
        tmp_path / "student.zip",
        "-c",
        "2d",
        "-f",
        0,
        "-tr",
        STUDENT,
        "-p",
        PLANS,
    )
    model = f"{DATASET}/{STUDENT}__{PLANS}__2d"
    assert f"{model}/fold_0/checkpoint_final.pth" in zipfile.ZipFile(tmp_path / "student.zip").namelist()
    shutil.rmtree(results)
    results.mkdir()
    stock("nnunetv2.model_sharing.entry_points:install_from_zip_entry_point", tmp_path / "student.zip")
    assert [each.relative_to(results).as_posix() for each in results.glob("*/*")] == [model]
    np.testing.assert_array_equal(_predict(nnunet, STUDENT, tmp_path / "after"), expected)


# Pretrained weights


def _pretrained(weights, plans, *more):
    return main(
        [
            "train",
            DATASET,
            "2d",
            "0",
            "-tr",
            STUDENT,
            "-p",
            plans,
            "-device",
            "cpu",
            "-pretrained_weights",
            str(weights),
            *more,
        ]
    )


def test_student_starts_from_another_students_weights(nnunet, variant, student):
    """All but the segmentation outputs, as in nnU-Net."""
    from nnunetv2.run.run_training import maybe_load_checkpoint

    trainer = make_trainer(nnunet, STUDENT, variant("started", base="nnUNetPlans_short", seed=5))
    maybe_load_checkpoint(trainer, False, False, str(student))
    given = load(student)["network_weights"]
    for name, value in trainer.network.state_dict().items():
        if name.endswith("weight") or "seg_layers" not in name:  # the bias of the untrained output is 0 in both
            assert (value == given[name]).all() == ("seg_layers" not in name), name


@pytest.mark.slow
def test_training_with_pretrained_weights_of_another_student_runs(nnunet, variant, student, monkeypatch):
    plans = variant("pretrained", base="nnUNetPlans_short", seed=5)
    command(
        "nnUNetv2_train",
        DATASET,
        "2d",
        0,
        "-tr",
        STUDENT,
        "-p",
        plans,
        "-device",
        "cpu",
        "-pretrained_weights",
        student,
    )
    fold = nnunet / "results" / DATASET / f"{STUDENT}__{plans}__2d/fold_0"
    assert load(fold / "checkpoint_final.pth")["current_epoch"] == 2


@pytest.mark.parametrize("more", [("--dry_run",), pytest.param((), marks=pytest.mark.slow)])
def test_a_teachers_weights_are_no_weights_of_a_student(variant, teacher_2d, capsys, more):
    weights = teacher_2d / "checkpoint_final.pth"
    assert _pretrained(weights, variant("misfit", base="nnUNetPlans_short"), *more) == 2
    error = capsys.readouterr().err
    assert f"The weights in {weights} are of another network, the first that does not fit is " in error
    assert "A teacher is named by the environment variable nnUNet_hlfd_teacher." in error
    assert len(error) < 1000, "nnU-Net's own message holds a whole tensor"


@pytest.mark.parametrize(("content", "expected"), [(None, "found none"), (b"", "is damaged")])
def test_pretrained_weights_that_are_no_file_of_nnunet_are_refused_first(
    nnunet, variant, tmp_path, capsys, content, expected
):
    file = tmp_path / "weights.pth"
    if content is not None:
        file.write_bytes(content)
    plans = variant("weightless")
    assert _pretrained(file, plans) == 2
    assert expected in capsys.readouterr().err
    assert not (nnunet / "results" / DATASET / f"{STUDENT}__{plans}__2d").exists()


# Weights & Biases


def test_a_dry_run_leaves_the_curves_of_an_earlier_run(nnunet, variant, student, monkeypatch):
    """nnU-Net deletes them where a training starts anew; without the package wandb it refuses to start at all."""
    plans = variant("curves", base="nnUNetPlans_short")
    curves = nnunet / "results" / DATASET / f"{STUDENT}__{plans}__2d/fold_0/wandb/run.wandb"
    curves.parent.mkdir(parents=True)
    curves.touch()
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    assert main(["train", DATASET, "2d", "0", "-tr", STUDENT, "-p", plans, "-device", "cpu", "--dry_run"]) == 0
    assert curves.is_file()
    assert os.environ["nnUNet_wandb_enabled"] == "1", "for the trainings that follow in this process"


@pytest.mark.slow
def test_wandb_gets_every_term_of_every_epoch_and_goes_on_after_a_resume(nnunet, variant, student, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in {"enabled": "1", "mode": "offline"}.items():
        monkeypatch.setenv(f"nnUNet_wandb_{name}", value)
    plans = variant("wandb", base="nnUNetPlans_short")
    first = make_trainer(nnunet, STUDENT, plans)
    first.on_train_start()
    run_epoch(first)
    first.logger.loggers[0].run.finish()
    second = make_trainer(nnunet, STUDENT, plans, continue_training=True)
    second.load_checkpoint(f"{first.output_folder}/checkpoint_latest.pth")
    second.run_training()
    second.logger.loggers[0].run.finish()
    curves = _wandb_curves(Path(first.output_folder) / "wandb")
    for row in second.log.rows:
        epoch = row.pop("epoch")
        for name, value in row.items():
            assert curves.get((f"hlfd/{name}", epoch)) == pytest.approx(value), (name, epoch, sorted(curves))
    assert {epoch for _, epoch in curves} == {0, 1}


def _wandb_curves(folder):
    """(key, step) -> value in the files that W&B writes offline."""
    curves = {}
    for file in sorted(folder.glob("offline-run-*/*.wandb")):
        for record in _finished_records(file):
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                curves[name, record.history.step.num] = json.loads(item.value_json)
    return {key: value for key, value in curves.items() if key[0].startswith("hlfd/")}


def _finished_records(file, seconds=60):
    """A run's records. W&B's own process writes the last ones when `finish` has long returned: wait for its exit."""
    from wandb.proto.wandb_internal_pb2 import Record

    deadline = time.monotonic() + seconds
    while True:
        records = [Record.FromString(data) for data in _leveldb_records(file.read_bytes())]
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        assert time.monotonic() < deadline, f"{file} is not finished after {seconds} s"
        time.sleep(0.1)


def _leveldb_records(data, block=32768, header=7):
    """Records of a log in LevelDB's format, after W&B's own header of the same length."""
    position, parts = header, []
    while position + header <= len(data):
        left = block - position % block
        if left < header:  # padding
            position += left
            continue
        _checksum, length, kind = struct.unpack_from("<IHB", data, position)
        position += header
        if position + length > len(data):  # still being written
            return
        parts.append(data[position : position + length])
        position += length
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []
