"""Dice and RVD on slices with tumor at a threshold of 0.4, on small label maps and probabilities made by hand."""

from functools import partial

import numpy as np
import pytest
from report_folders import cases, volume, write_model, write_scene

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.report.arms import Arm
from nnunetv2_hlfd.report.models import read_models
from nnunetv2_hlfd.report.paper_evaluation import measure_paper_evaluation, paper_section
from nnunetv2_hlfd.report.probabilities import check_probabilities
from nnunetv2_hlfd.report.target import choose_target

TUMOR = (2, (1, 3), (0, 4), (0, 4))  # 32 voxels in slices 1 and 2
FILE = "fold_0/validation/case_000.npz"


@pytest.fixture
def scene(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    return partial(write_scene, tmp_path)


def write_probabilities(model, tumor, *, channel=2, channels=3):
    """Of the tumor; the other channels share the rest."""
    tumor = np.asarray(tumor, dtype=np.float32)
    array = np.repeat((1 - tumor)[None] / (channels - 1), channels, axis=0)
    array[channel] = tumor
    np.savez_compressed(model.folder.path / FILE, probabilities=array)


def measure(models, name="tumor"):
    return measure_paper_evaluation(models, [0], choose_target(models[0], name))


def test_a_false_positive_outside_the_tumors_slices_counts_for_the_whole_case_only(scene):
    """Slice 0 has 16 voxels of false positive: 2 * 32 / (48 + 32) for the case, 1 for its slices."""
    [model] = scene(volume(TUMOR), volume(TUMOR, (2, (0, 1), (0, 4), (0, 4))), kind="labels")
    write_probabilities(model, volume(TUMOR) == 2)
    [row] = measure([model]).itertuples()
    assert (row.run, row.case, row.slices) == (model.run, "case_000", 2)
    assert (row.dice, row.slices_dice, row.threshold_dice) == pytest.approx((0.8, 1, 1))
    assert (row.rvd, row.slices_rvd, row.threshold_rvd) == pytest.approx((0.5, 0, 0))


def test_the_threshold_is_above_0_4_of_the_label_whatever_the_others_have(scene):
    """Half of the tumor at 0.41, half at 0.4; nnU-Net's segmentation has none of it."""
    [model] = scene(volume(TUMOR), volume(), kind="labels")
    tumor = np.where(volume(TUMOR) == 2, 0.41, 0.1)
    tumor[2] = np.minimum(tumor[2], 0.4)
    write_probabilities(model, tumor)
    [row] = measure([model]).itertuples()
    assert (row.dice, row.slices_dice, row.threshold_dice) == pytest.approx((0, 0, 2 * 16 / 48))
    assert (row.rvd, row.threshold_rvd) == pytest.approx((-1, -0.5))


def test_regions_have_channels_in_their_order(scene):
    truth = volume((1, (0, 4), (0, 8), (0, 8)), TUMOR)
    [model] = scene(truth, truth, kind="regions")
    write_probabilities(model, truth == 2, channel=1, channels=2)
    [row] = measure([model]).itertuples()
    assert row.threshold_dice == 1
    [whole] = measure([model], "whole").itertuples()
    assert whole.slices == 4
    assert whole.threshold_rvd == pytest.approx((4 * 144 - 32) / 256 - 1)  # channel 0 is 1 outside the tumor


def test_ignored_voxels_count_for_nothing(scene):
    truth = volume(TUMOR, (7, (1, 2), (6, 12), (0, 12)))
    everywhere = np.full(truth.shape, 2)
    [model] = scene(truth, everywhere, kind="labels", ignore=7)
    write_probabilities(model, np.ones(truth.shape))
    [row] = measure([model]).itertuples()
    assert row.rvd == pytest.approx((4 * 144 - 72) / 32 - 1)
    assert row.threshold_rvd == row.slices_rvd == pytest.approx((2 * 144 - 72) / 32 - 1)


def test_slices_lie_across_the_axis_that_nnunet_takes_first(scene):
    """KiTS19's files have their slices along the last axis of the array: the tumor fills 4 of them."""
    [model] = scene(volume(TUMOR), volume(TUMOR), kind="labels")
    model.folder.plans.plans["transpose_forward"] = [2, 0, 1]
    write_probabilities(model, volume(TUMOR) == 2)
    assert measure([model])["slices"].tolist() == [4]


def test_a_label_that_no_case_has_is_refused(scene):
    [model] = scene(volume((1, (0, 1), (0, 4), (0, 4))), volume(), kind="labels")
    write_probabilities(model, volume())
    with pytest.raises(ValueError, match="No validation case has the label 'tumor', which --paper_evaluation is to"):
        measure([model])


def test_the_table_is_the_mean_over_runs_with_its_deviation(scene):
    models = scene(volume(TUMOR), volume(TUMOR), volume(), volume(TUMOR), kind="labels")
    for model, value in zip(models, (1, 1, 0), strict=True):
        write_probabilities(model, value * (volume(TUMOR) == 2))
    arms = [Arm(name="teacher", models=models[:1]), Arm(name="student", models=models[1:])]
    [table] = paper_section(measure(models), arms, choose_target(models[0], None)).content
    assert table.head[2:] == [
        "Dice, whole cases",
        "Dice, slices",
        "Dice, slices, 0.4",
        "RVD, whole cases",
        "RVD, slices, 0.4",
    ]
    assert table.rows == [
        ["teacher", "1", "1.000", "1.000", "1.000", "0.000", "0.000"],
        ["student", "2", *["0.500 ± 0.707"] * 3, *["-0.500 ± 0.707"] * 2],
    ]


def test_missing_probabilities_are_refused_with_nnunets_command_before_anything_is_measured(scene, tmp_path, capsys):
    models = scene(volume(TUMOR), volume(TUMOR), volume(TUMOR), kind="labels")
    write_probabilities(models[0], volume(TUMOR) == 2)
    check_probabilities(models[:1], [0], "--paper_evaluation")
    folders = [str(model.folder.path) for model in models]
    assert main(["report", "-m", *folders, "-o", str(tmp_path / "out"), "--paper_evaluation"]) == 2
    message = capsys.readouterr().err
    assert f"needs {models[1].folder.path / FILE}, found none." in message
    assert "nnUNetv2_train Dataset901_Made 2d 0 -tr nnUNetTrainer -p p1 --val --npz" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["case.1", "case"])
def test_probabilities_lie_beside_the_label_map_whatever_its_name(case, tmp_path):
    folder = write_model(tmp_path, "nnUNetTrainer", {case: 0.5})
    for ending in (".nii.gz", ".npz"):
        (folder / "fold_0" / "validation" / f"{case}{ending}").touch()
    check_probabilities(read_models([folder]), [0], "--calibration")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((3, 2, 2, 2), dtype=np.float32), r"Expected probabilities of shape \(4, 12, 12\) in .*case_000.npz"),
        (np.array(None), r"case_000.npz"),  # an object: reading it would need pickle, which can run code
        (b"no archive", r"case_000.npz"),
    ],
)
def test_damaged_probabilities_are_refused(scene, content, message):
    [model] = scene(volume(TUMOR), volume(TUMOR), kind="labels")
    if isinstance(content, bytes):
        (model.folder.path / FILE).write_bytes(content)
    else:
        np.savez_compressed(model.folder.path / FILE, probabilities=content)
    with pytest.raises(ValueError, match=message):
        measure([model])


def test_an_unknown_label_is_refused(tmp_path, capsys):
    folders = [write_model(tmp_path, f"nnUNetTrainer{each}", cases((0.5, 0.5)), kind="labels") for each in "ab"]
    assert len(read_models(folders)) == 2
    arguments = ["report", "-m", *map(str, folders), "-o", str(tmp_path / "out"), "--paper_evaluation", "liver"]
    assert main(arguments) == 2
    assert "Expected one of the labels kidney, tumor, got 'liver'." in capsys.readouterr().err
