"""Lesions found, missed and made up, on small label maps drawn by hand."""

import json
from dataclasses import replace
from functools import partial
from itertools import permutations

import numpy as np
import pytest
import SimpleITK
from report_folders import volume, write_map, write_scene

from nnunetv2_hlfd.report.lesions import LEAST_IOU, _match, lesion_recall, measure_lesions
from nnunetv2_hlfd.report.models import read_models


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """Write the true and each model's label map of one case; returns the models."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    return partial(write_scene, tmp_path)


LARGE, SMALL = (1, (0, 3), (0, 4), (0, 4)), (1, (2, 3), (8, 10), (8, 10))


def recall(models):
    lesions, missing = measure_lesions(models, [0])
    assert missing == []
    return lesion_recall(lesions).set_index(["run", "label"])


def test_a_lesion_is_found_by_one_voxel_and_recall_counts_lesions(scene):
    models = scene(volume(LARGE, SMALL), volume((1, (0, 1), (0, 1), (0, 1))), volume(LARGE, SMALL), volume())
    found = recall(models)
    assert found["recall"].tolist() == [0.5, 1, 0]
    assert found["lesions"].tolist() == [2, 2, 2]
    assert found["small_recall"].tolist() == [0, 1, 0]
    assert found["false_positives"].tolist() == [0, 0, 0]


def test_lesions_that_touch_at_a_corner_are_one(scene):
    truth = volume((1, (0, 1), (0, 1), (0, 1)), (1, (1, 2), (1, 2), (1, 2)))
    assert recall(scene(truth, truth))["lesions"].tolist() == [1]


def test_a_predicted_component_without_a_true_voxel_is_a_false_positive(scene):
    spots = [(1, (0, 1), (6, 7), (0, 1)), (1, (3, 4), (11, 12), (0, 2))]
    [row] = recall(scene(volume(LARGE), volume(LARGE, *spots))).itertuples()
    assert (row.recall, row.false_positives) == (1, 2)


def test_a_component_of_the_prediction_that_touches_a_true_one_at_a_corner_is_no_false_positive_of_its_own(scene):
    """26 neighbors: one component with a true voxel in it."""
    truth = volume((1, (0, 1), (0, 1), (0, 1)))
    predicted = volume((1, (0, 1), (0, 1), (0, 1)), (1, (1, 2), (1, 2), (1, 2)))
    [row] = recall(scene(truth, predicted)).itertuples()
    assert (row.recall, row.false_positives) == (1, 0)


def test_a_lesion_of_just_the_median_volume_is_not_in_the_smaller_half(scene):
    """1, 4 and 16 voxels: only the first lies below the median; it is missed, the second is found."""
    lesions = [(1, (0, 1), (0, 1), (0, 1)), (1, (0, 1), (4, 6), (4, 6)), (1, (3, 4), (8, 12), (8, 12))]
    found = recall(scene(volume(*lesions), volume(*lesions[1:]), volume(lesions[0])))
    assert found["small_recall"].tolist() == [0, 1]


def test_f1_counts_one_match_for_two_lesions_that_are_predicted_as_one(scene):
    """Both are found, but the single component is the match of the larger one: 2 * 1 / (2 + 1)."""
    truth = volume((1, (0, 4), (0, 4), (0, 4)), (1, (0, 4), (5, 7), (0, 4)))
    predicted = volume((1, (0, 4), (0, 7), (0, 4)))
    lesions, _ = measure_lesions(scene(truth, predicted), [0])
    assert lesions[lesions["voxels"] > 0][["voxels", "detected", "matched"]].to_numpy().tolist() == [
        [64, True, True],
        [32, True, False],
    ]
    [row] = lesion_recall(lesions).itertuples()
    assert (row.recall, row.f1, row.false_positives) == (1, pytest.approx(2 / 3), 0)


def test_f1_counts_one_match_for_a_lesion_that_is_predicted_in_two_parts(scene):
    truth = volume((1, (0, 4), (0, 7), (0, 4)))
    predicted = volume((1, (0, 4), (0, 4), (0, 4)), (1, (0, 4), (5, 7), (0, 4)))
    [row] = recall(scene(truth, predicted)).itertuples()
    assert (row.recall, row.f1, row.false_positives) == (1, pytest.approx(2 / 3), 0)


@pytest.mark.parametrize(("width", "f1"), [(10, 1), (11, 0)])
def test_a_match_needs_an_iou_of_a_tenth(scene, width, f1):
    """One voxel of a lesion of 10 or 11."""
    truth, predicted = volume((1, (0, 1), (0, 1), (0, width))), volume((1, (0, 1), (0, 1), (0, 1)))
    [row] = recall(scene(truth, predicted)).itertuples()
    assert (row.recall, row.f1) == (1, f1)


def test_matches_are_the_pairs_with_the_largest_sum_of_iou_as_all_assignments_tried_out():
    random = np.random.default_rng(0)
    for _ in range(50):
        table = random.random((4, 3)) * (random.random((4, 3)) < 0.6)
        pairs = np.argwhere(table > 0).T + 1
        table[table < LEAST_IOU] = 0
        best = max(
            (
                [(row, column) for row, column in enumerate(order) if column < 3 and table[row, column] > 0]
                for order in permutations(range(4))
            ),
            key=lambda assignment: sum(table[pair] for pair in assignment),
        )
        assert _match(pairs, table[tuple(pairs - 1)]) == {row + 1 for row, _ in best}


@pytest.mark.parametrize(("predicted", "f1"), [(volume(), None), (volume(SMALL), 0)])
def test_without_a_lesion_f1_is_0_for_false_positives_and_else_there_is_none(scene, predicted, f1):
    [row] = recall(scene(volume(), predicted)).itertuples()
    assert row.f1 == f1 or (f1 is None and np.isnan(row.f1))


def test_regions_are_unions_of_labels(scene):
    """The tumor (2) lies in the kidney (1): one region `whole`, found by its kidney part alone."""
    truth = volume((1, (0, 3), (0, 6), (0, 6)), (2, (0, 2), (0, 2), (0, 2)))
    predicted = volume((1, (0, 3), (3, 6), (3, 6)))
    found = recall(scene(truth, predicted, kind="regions"))
    assert found["recall"].to_dict() == {("nnUNetTrainer__p0__2d", "whole"): 1, ("nnUNetTrainer__p0__2d", "tumor"): 0}


def test_ignored_voxels_count_for_nothing(scene):
    truth = volume(LARGE, (7, (0, 4), (6, 12), (0, 12)))
    predicted = volume(LARGE, (1, (0, 4), (8, 10), (0, 4)))
    [row] = recall(scene(truth, predicted, ignore=7)).itertuples()
    assert (row.lesions, row.false_positives) == (1, 0)


def test_cases_without_images_are_told_and_the_others_measured(scene, tmp_path):
    models = scene(volume(LARGE), volume(LARGE))
    (tmp_path / "preprocessed/Dataset901_Made/gt_segmentations/case_000.nii.gz").unlink()
    lesions, missing = measure_lesions(models, [0])
    assert len(lesions) == 0
    assert len(missing) == 1
    assert missing[0].startswith("case_000: no ")
    assert len(lesion_recall(lesions)) == 0


def test_the_recorded_reference_is_taken_where_it_is(scene, tmp_path):
    [model] = scene(volume(LARGE), volume(LARGE))
    write_map(tmp_path / "elsewhere.nii.gz", volume(LARGE, SMALL))
    recorded = replace(model, cases=model.cases.assign(reference=str(tmp_path / "elsewhere.nii.gz")))
    assert recall([recorded])["recall"].tolist() == [0.5]


def test_label_maps_of_other_kinds_recorded_on_another_machine_are_compared(scene):
    """The teacher was trained on Windows from .nrrd files that are not here; the student's truth is."""
    teacher, student = scene(volume(LARGE, SMALL), volume(LARGE), volume(SMALL))
    folder = teacher.folder.path
    moved = SimpleITK.ReadImage(str(folder / "fold_0/validation/case_000.nii.gz"))
    SimpleITK.WriteImage(moved, str(folder / "fold_0/validation/case_000.nrrd"))
    (folder / "fold_0/validation/case_000.nii.gz").unlink()
    for name in ("dataset.json", "fold_0/validation/summary.json"):
        text = (folder / name).read_text().replace(".nii.gz", ".nrrd").replace("/gone/", "D:\\\\gone\\\\")
        (folder / name).write_text(text)
    models = read_models([folder, student.folder.path])
    assert models[0].cases["reference"].iloc[0] == r"D:\gone\case_000.nrrd"
    assert recall(models)["recall"].tolist() == [0.5, 0.5]


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize("recorded", ["x" * 10_000, "/x/" + "y" * 300 + ".nii.gz", "a\0b", ""])
def test_a_case_whose_recorded_path_can_be_none_is_left_out(scene, tmp_path, recorded):
    scene(volume(LARGE), volume(LARGE))
    file = tmp_path / "nnUNetTrainer__p0__2d/fold_0/validation/summary.json"
    content = json.loads(file.read_text())
    content["metric_per_case"][0]["reference_file"] = recorded
    file.write_text(json.dumps(content))
    lesions, missing = measure_lesions(read_models([file.parents[2]]), [0])
    assert lesions.empty
    assert missing[0].startswith("case_000: no ")
