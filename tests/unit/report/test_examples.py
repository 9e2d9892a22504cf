"""Which cases the pictures of a report show."""

import pandas as pd
import pytest
from report_folders import cases, write_model

from nnunetv2_hlfd.report.arms import group_models
from nnunetv2_hlfd.report.examples import cases_with, choose_examples
from nnunetv2_hlfd.report.models import read_model


def students(tmp_path, *dice, seeds=1):
    folders = [
        write_model(
            tmp_path,
            f"nnUNetTrainer{index}",
            values,
            plans=f"p{seed}",
            settings={"beta": 0.9},
            seed=seed,
            title=str(index),
        )
        for index, values in enumerate(dice)
        for seed in range(seeds)
    ]
    return group_models([read_model(folder) for folder in folders])


def table(arms, **without):
    rows = [each.cases.assign(arm=arm.name, run=each.run) for arm in arms for each in arm.models]
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
        "worst": "case_000",
        "best": "case_001",
    }


def test_cases_without_the_label_are_never_shown(tmp_path):
    arms = students(tmp_path, cases(0.0, 0.4, 0.5, 1.0))
    without = table(arms, empty=("case_000", "case_003"))
    assert cases_with(without, "lesion") == ["case_001", "case_002"]
    assert [case for case, _ in choose_examples(without, "lesion", arms).values()] == ["case_001", "case_002"]
