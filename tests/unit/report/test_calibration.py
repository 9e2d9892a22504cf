"""Expected calibration error and reliability curves on probabilities made by hand, and against scikit-learn's curve."""

from functools import partial

import numpy as np
import pytest
from report_folders import volume, write_scene
from sklearn.calibration import calibration_curve

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.report.arms import Arm
from nnunetv2_hlfd.report.calibration import (
    _bins,
    calibration_error,
    calibration_section,
    measure_calibration,
    reliability,
)

CUBE = (1, (0, 4), (0, 4), (0, 4))


@pytest.fixture
def scene(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    return partial(write_scene, tmp_path)


def write_probabilities(model, *labels):
    """Of each label; the background has the rest."""
    labels = np.asarray(labels, dtype=np.float32)
    array = np.concatenate([1 - labels.sum(axis=0, keepdims=True), labels])
    np.savez_compressed(model.folder.path / "fold_0/validation/case_000.npz", probabilities=array)


def error(model, label="lesion"):
    table = calibration_error(measure_calibration([model], [0]))
    return table.set_index("label")["ece"][label]


def test_bins_are_those_of_scikit_learn_and_the_error_follows_from_them():
    random = np.random.default_rng(0)
    probability = random.random(5000)
    truth = random.random(5000) < probability**2
    bins = _bins(probability, truth)
    frequency, mean = calibration_curve(truth, probability, n_bins=10)
    assert [row["probability"] for row in bins] == pytest.approx(mean)
    assert [row["frequency"] for row in bins] == pytest.approx(frequency)
    assert [row["share"] for row in bins] == pytest.approx(np.histogram(probability, 10, (0, 1))[0] / 5000)


def test_the_right_probability_has_no_error_and_one_that_is_too_sure_has_the_distance(scene):
    """The lesion is there in half of the voxels that were given 0.5, then 0.8."""
    truth = volume((1, (0, 2), (0, 12), (0, 12)))  # slices 0 and 1 of 4
    [model] = scene(truth, truth)
    write_probabilities(model, np.full(truth.shape, 0.5))
    assert error(model) == pytest.approx(0)
    write_probabilities(model, np.full(truth.shape, 0.8))
    assert error(model) == pytest.approx(0.3)


def test_only_the_box_around_the_label_and_8_voxels_more_counts(scene):
    """Of 30 x 30 voxels 12 x 12: the rest is wrong everywhere."""
    truth = volume(CUBE, size=(4, 30, 30))
    [model] = scene(truth, truth)
    probability = np.where(volume((1, (0, 4), (0, 12), (0, 12)), size=truth.shape), truth == 1, 1.0)
    write_probabilities(model, probability)
    assert error(model) == pytest.approx(0)
    probability[:, 11, 11] = 1
    write_probabilities(model, probability)
    assert error(model) == pytest.approx(1 / 144)


def test_ignored_voxels_count_for_nothing(scene):
    truth = volume(CUBE, (7, (0, 4), (4, 12), (0, 12)))
    [model] = scene(truth, truth, ignore=7)
    write_probabilities(model, truth > 0)
    assert error(model) == pytest.approx(0)


def test_labels_have_their_own_channels_and_a_mean_over_those_that_the_case_has(scene):
    truth = volume(CUBE, (2, (0, 4), (8, 12), (8, 12)))
    [model] = scene(truth, truth, kind="labels")
    write_probabilities(model, truth == 1, np.full(truth.shape, 0.0))
    tumor = 64 / truth.size
    assert [error(model, label) for label in ("kidney", "tumor", "mean of labels")] == pytest.approx(
        [0, tumor, tumor / 2]
    )


def test_a_label_that_no_case_has_has_no_error(scene):
    truth = volume(CUBE)
    [model] = scene(truth, truth, kind="labels")
    write_probabilities(model, truth == 1, np.full(truth.shape, 0.5))
    assert measure_calibration([model], [0])["label"].unique().tolist() == ["kidney"]


def test_the_section_compares_with_the_student_alone_and_draws_the_curve(scene):
    truth = volume((1, (0, 2), (0, 12), (0, 12)))
    models = scene(truth, truth, truth, truth)
    for model, value in zip(models, (0.5, 0.9, 0.6), strict=True):
        write_probabilities(model, np.full(truth.shape, value))
    object.__setattr__(models[1].folder, "trainer", "nnUNetTrainerStudent")
    arms = [Arm(name=name, models=[model]) for name, model in zip(("teacher", "alone", "HLFD"), models, strict=True)]
    measured = measure_calibration(models, [0])
    table, picture = calibration_section(measured, arms).content
    assert table.rows == [
        ["lesion", "teacher", "alone", "1", "0.000", "-0.400 (one case)", "1"],
        ["lesion", "alone", "-", "1", "0.400", "-", "1"],
        ["lesion", "HLFD", "alone", "1", "0.100", "-0.300 (one case)", "1"],
    ]
    curves = reliability(measured, arms)
    assert curves["lesion"]["alone"].ravel() == pytest.approx([0.9, 0.5])
    assert [line.get_xydata().ravel().tolist() for line in picture.figure.axes[0].lines[1:]] == [
        pytest.approx([value, 0.5]) for value in (0.5, 0.9, 0.6)
    ]


def test_the_command_names_what_is_missing_and_else_adds_the_section(scene, tmp_path, capsys):
    truth = volume(CUBE)
    models = scene(truth, truth, truth)
    arguments = ["report", "-m", *(str(model.folder.path) for model in models), "-o", str(tmp_path / "out")]
    write_probabilities(models[0], truth)
    assert main([*arguments, "--calibration"]) == 2
    assert "--calibration needs " in capsys.readouterr().err
    write_probabilities(models[1], truth)
    assert main([*arguments, "--calibration"]) == 0
    assert "## Calibration" in (tmp_path / "out/report.md").read_text()
    assert (tmp_path / "out/calibration.csv").is_file()
    assert (tmp_path / "out/reliability.png").is_file()
