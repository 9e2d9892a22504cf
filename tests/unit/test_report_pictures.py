"""Which cases, labels and patches the pictures of a report show."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from report_folders import cases, write_model

from nnunetv2_hlfd.cli import main
from nnunetv2_hlfd.report.arms import group_models
from nnunetv2_hlfd.report.examples import cases_with, choose_examples
from nnunetv2_hlfd.report.maps import choose_target
from nnunetv2_hlfd.report.models import read_model
from nnunetv2_hlfd.report.patches import lesion_center, read_patch


def students(tmp_path, *dice, seeds=1):
    folders = [
        write_model(tmp_path, f"nnUNetTrainer{index}", values, plans=f"p{seed}", settings={"beta": 0.9}, seed=seed,
                    title=str(index))
        for index, values in enumerate(dice) for seed in range(seeds)
    ]  # fmt: skip
    return group_models([read_model(folder) for folder in folders])


def table(arms, **without):
    rows = [
        each.cases.assign(arm=arm.name, run=each.run) for arm in arms for each in arm.models
    ]  # fmt: skip
    found = pd.concat(rows, ignore_index=True)
    found.loc[found["case"].isin(without.get("empty", ())), "n_ref"] = 0
    return found


def test_worst_median_and_best_are_ordered_by_the_mean_over_the_students(tmp_path):
    arms = students(tmp_path, cases(0.9, 0.1, 0.5, 0.6), cases(0.1, 0.7, 0.3, 0.6))
    assert choose_examples(table(arms), "lesion", arms) == {
        "worst": ("case_001", pytest.approx(0.4)),
        "median": ("case_002", pytest.approx(0.4)),
        "best": ("case_003", pytest.approx(0.6)),
    }


def test_an_arm_with_more_seeds_weighs_no_more_than_another(tmp_path):
    first, second = students(tmp_path, cases(0.9, 0.1), seeds=3), students(tmp_path / "b", cases(0.0, 0.9))
    second = [type(each)(name="b", models=each.models) for each in second]
    arms = [*first, *second]
    assert {name: case for name, (case, _) in choose_examples(table(arms), "lesion", arms).items()} == {
        "worst": "case_000", "best": "case_001"
    }  # fmt: skip


def test_cases_without_the_label_are_never_shown(tmp_path):
    arms = students(tmp_path, cases(0.0, 0.4, 0.5, 1.0))
    without = table(arms, empty=("case_000", "case_003"))
    assert cases_with(without, "lesion") == ["case_001", "case_002"]
    assert [case for case, _ in choose_examples(without, "lesion", arms).values()] == ["case_001", "case_002"]


@pytest.mark.parametrize(("kind", "name", "expected"), [
    ("labels", None, ("tumor", 2, 2, False)),
    ("labels", "kidney", ("kidney", 1, 1, False)),
    ("regions", None, ("tumor", 2, 1, True)),
    ("regions", "whole", ("whole", (1, 2), 0, True)),
])  # fmt: skip
def test_the_target_is_the_last_label_or_the_named_one_with_its_channel(tmp_path, kind, name, expected):
    model = read_model(write_model(tmp_path, "nnUNetTrainer", cases((0.5, 0.5)), kind=kind))
    target = choose_target(model, name)
    assert (target.name, target.value, target.channel, target.regions) == expected


def test_a_name_that_is_no_label_is_refused_before_anything_is_measured(tmp_path, capsys):
    folders = [write_model(tmp_path, f"nnUNetTrainer{each}", cases((0.5, 0.5)), kind="labels") for each in "ab"]
    arguments = ["report", "-m", *map(str, folders), "-o", str(tmp_path / "out"), "--pictures", "liver"]
    assert main(arguments) == 2
    assert "Expected one of the labels kidney, tumor for --pictures, got 'liver'." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_captum_nothing_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    folders = [write_model(tmp_path, f"nnUNetTrainer{each}", cases(0.5)) for each in "ab"]
    assert main(["report", "-m", *map(str, folders), "-o", str(tmp_path / "out"), "--pictures"]) == 2
    assert "pip install nnunetv2-hlfd[pictures]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_center_is_the_centroid_of_the_slice_with_most_of_the_lesion():
    lesion = np.zeros((3, 8, 8), dtype=bool)
    lesion[0, 0, 0] = True
    lesion[2, 4:7, 1:4] = True
    assert lesion_center(lesion) == (2, 5, 2)
    assert lesion_center(np.zeros((3, 8, 8), dtype=bool)) == (1, 4, 4)


@pytest.fixture
def dataset(tmp_path):
    """nnU-Net's own preprocessed case of 3 x 8 x 10 voxels whose values are their indices."""
    data = np.arange(240, dtype=np.float32).reshape(1, 3, 8, 10)
    labels = np.zeros((1, 3, 8, 10), dtype=np.int16)
    labels[0, 2, 1:3, 7:10] = 2
    labels[0, 2, 0, 0] = 3
    nnUNetDatasetBlosc2.save_case(data, labels, {}, str(tmp_path / "case"), (1, 3, 8, 10), (1, 3, 8, 10))
    return nnUNetDatasetBlosc2(str(tmp_path)), data, labels


def test_the_patch_is_moved_inside_the_image(dataset):
    opened, data, labels = dataset
    patch = read_patch(opened, "case", 2, None, [4, 4])
    assert torch.equal(patch.data, torch.from_numpy(data[:, 2, 0:4, 6:10])[None])
    assert torch.equal(patch.lesion, torch.from_numpy(labels[0, 2, 0:4, 6:10] == 2))
    assert patch.valid.all()
    assert patch.shown is None


def test_a_patch_larger_than_the_image_is_padded_around_it(dataset):
    opened, data, labels = dataset
    patch = read_patch(opened, "case", 2, 3, [6, 8, 16])
    assert patch.data.shape == (1, 1, 6, 8, 16)
    assert torch.equal(patch.data[0, :, 1:4, :, 3:13], torch.from_numpy(data))
    assert patch.data.sum() == data.sum()
    assert torch.equal(patch.lesion[1:4, :, 3:13], torch.from_numpy(labels[0] == 2))
    assert patch.shown == 3
    assert patch.lesion[patch.shown].sum() == 6
    assert (~patch.valid).nonzero().tolist() == [[3, 0, 3]]
