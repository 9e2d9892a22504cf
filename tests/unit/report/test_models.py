"""Reading finished model folders, and which of them are runs of one arm."""

import json
import math

import pytest
from report_folders import cases, write_model

from nnunetv2_hlfd.report.arms import group_models, student_alone
from nnunetv2_hlfd.report.models import check_same_cases, read_model, read_models

SETTINGS = {"beta": 0.9, "lambda": 0.1, "weights": None, "save_every": 10}

# Reading


def test_every_case_and_label_of_every_fold_is_read(tmp_path):
    dice = {0: cases((0.5, 0.25), (1.0, math.nan)), 3: {"other.b": (0.75, 0.0)}}
    dice[3] = {"other": (0.75, 0.0)}
    folder = write_model(tmp_path, "nnUNetTrainer", dice, kind="labels", folds=(0, 3), n_pred=30, n_ref=40)
    model = read_model(folder)
    assert (model.folder.trainer, model.folder.plans.plans_name, model.folder.configuration) == (
        "nnUNetTrainer",
        "nnUNetPlans",
        "2d",
    )
    assert (model.title, model.seed, model.settings, model.records) == ("nnU-Net", None, {}, {})
    assert model.folds == [0, 3]
    rows = [(row.fold, row.case, row.label, row.dice) for row in model.cases.itertuples()]
    assert rows[:3] == [(0, "case_000", "kidney", 0.5), (0, "case_000", "tumor", 0.25), (0, "case_001", "kidney", 1.0)]
    assert math.isnan(rows[3][3])
    assert rows[4:] == [(3, "other", "kidney", 0.75), (3, "other", "tumor", 0.0)]
    assert model.cases["n_pred"].tolist() == [30, 30, 30, 0, 30, 30]
    assert model.cases["n_ref"].tolist() == [40, 40, 40, 0, 40, 40]
    assert model.cases["prediction"].iloc[0] == str(folder / "fold_0" / "validation" / "case_000.nii.gz")


def test_regions_are_read_by_their_names(tmp_path):
    model = read_model(write_model(tmp_path, "nnUNetTrainer", cases((0.5, 0.25)), kind="regions"))
    assert model.labels == {"whole": (1, 2), "tumor": 2}
    assert dict(zip(model.cases["label"], model.cases["dice"], strict=True)) == {"whole": 0.5, "tumor": 0.25}


def test_settings_seed_and_title_come_from_the_record(tmp_path):
    model = read_model(
        write_model(tmp_path, "nnUNetTrainerEMKD", cases(0.5), settings=SETTINGS, seed=3, title="EMKD (paper: DKD)")
    )
    assert (model.title, model.seed, model.settings) == ("EMKD (paper: DKD)", 3, SETTINGS)


def test_fold_all_alone_is_refused_and_beside_others_left_out(tmp_path):
    folder = write_model(tmp_path, "nnUNetTrainer", {"all": cases(0.9)}, folds=("all",))
    with pytest.raises(ValueError, match="validated on its training cases"):
        read_model(folder)
    both = write_model(tmp_path, "nnUNetTrainer", {"all": cases(0.9), 1: cases(0.5)}, plans="p", folds=("all", 1))
    assert read_model(both).folds == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: folder.rename(folder.with_name("model")), "Expected a readable checkpoint in a fold of "),
        (lambda folder: (folder / "plans.json").unlink(), "Expected a model folder of nnU-Net with plans.json and "),
        (lambda folder: (folder / "dataset.json").write_text("{}"), "dataset.json is damaged"),
        (lambda folder: (folder / "dataset.json").write_text("["), "dataset.json is damaged"),
        (lambda folder: (folder / "fold_0/validation/summary.json").write_text("{}"), "summary.json is damaged"),
        (
            lambda folder: (folder / "fold_0/validation/summary.json").write_text('{"metric_per_case": [3]}'),
            "is damaged",
        ),
    ],
)
def test_what_is_no_finished_model_is_refused(change, message, tmp_path):
    folder = write_model(tmp_path, "nnUNetTrainer", cases(0.5))
    changed = change(folder)
    with pytest.raises(ValueError, match=message):
        read_model(changed if hasattr(changed, "is_dir") else folder)


def test_an_unvalidated_fold_is_answered_with_the_command_that_validates_it(tmp_path):
    folder = write_model(tmp_path / "Dataset901_Made", "nnUNetTrainerHLFD", cases(0.5), folds=(2,))
    (folder / "fold_2" / "validation" / "summary.json").unlink()
    with pytest.raises(ValueError, match="Expected validation results in ") as caught:
        read_model(folder)
    command = "nnUNetv2_train Dataset901_Made 2d 2 -tr nnUNetTrainerHLFD -p nnUNetPlans --val"
    assert str(caught.value).endswith(f"Make them with: {command}")


def test_a_folder_given_twice_is_refused_and_equal_names_are_told_apart(tmp_path):
    one = write_model(tmp_path / "a", "nnUNetTrainer", cases(0.5))
    other = write_model(tmp_path / "b", "nnUNetTrainer", cases(0.6))
    with pytest.raises(ValueError, match="is given twice"):
        read_models([one, tmp_path / "a" / "." / one.name])
    assert [model.run for model in read_models([one, other])] == [str(one), str(other)]
    assert [model.run for model in read_models([one])] == [one.name]


# The same cases


def test_common_folds_are_compared(tmp_path):
    dice = {0: cases(0.5), 1: {"b": 0.6}, 2: {"c": 0.7}}
    one = write_model(tmp_path, "nnUNetTrainer", dice, folds=(0, 1))
    other = write_model(tmp_path, "nnUNetTrainerStudent", dice, folds=(1, 2))
    assert check_same_cases(read_models([one, other])) == [1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dice": {1: cases(0.5)}, "folds": (1,)}, "Expected models with a common validated fold, got folds"),
        ({"dice": {0: {"case_000": 0.5, "x": 0.5}}}, "only there x, only here case_001"),
        ({"dice": {0: cases((0.5, 0.5), (0.5, 0.5))}, "kind": "labels"}, "Expected models with the same labels"),
    ],
)
def test_models_of_other_data_are_refused(changed, message, tmp_path):
    one = write_model(tmp_path, "nnUNetTrainer", cases(0.5, 0.6))
    other = write_model(tmp_path, "nnUNetTrainerStudent", **changed)
    with pytest.raises(ValueError, match=message):
        check_same_cases(read_models([one, other]))


def test_a_case_in_two_folds_is_refused(tmp_path):
    folder = write_model(tmp_path, "nnUNetTrainer", {0: cases(0.5), 1: cases(0.6)}, folds=(0, 1))
    with pytest.raises(ValueError, match="was validated on case_000 in more than one fold"):
        read_model(folder)


# Arms


def arms(*models):
    return {
        arm.name: [model.folder.plans.plans_name for model in arm.models] for arm in group_models(read_models(models))
    }


def model(parent, plans, trainer="nnUNetTrainerHLFD", title="HLFD", seed=1, teacher=None, **settings):
    return write_model(
        parent,
        trainer,
        cases(0.5),
        plans=plans,
        settings={**SETTINGS, **settings},
        seed=seed,
        title=title,
        teacher=teacher,
    )


def test_models_that_differ_in_the_seed_alone_are_one_arm(tmp_path):
    found = arms(
        model(tmp_path, "s1"),
        model(tmp_path, "kd", "nnUNetTrainerKD", "KD"),
        model(tmp_path, "s2", seed=2),
        model(tmp_path, "s3", seed=3, save_every=1),
    )
    assert found == {"HLFD": ["s1", "s2", "s3"], "KD": ["kd"]}


def test_arms_of_one_method_are_called_by_the_settings_in_which_they_differ(tmp_path):
    found = arms(
        model(tmp_path, "a"),
        model(tmp_path, "b", beta=1.8),
        model(tmp_path, "c", beta=1.8, weights={"KD": 1.0}),
        model(tmp_path, "d", "nnUNetTrainerKD", "KD", beta=1.8),
    )
    assert found == {"HLFD": ["a"], "HLFD, beta 1.8": ["b"], "HLFD, beta 1.8, weights KD=1": ["c"], "KD": ["d"]}


def test_other_teachers_make_other_arms(tmp_path):
    found = arms(model(tmp_path, "a"), model(tmp_path, "b", teacher="untrained"))
    assert found == {"HLFD (a)": ["a"], "HLFD (b)": ["b"]}


def test_stock_models_are_arms_of_their_own(tmp_path):
    one = write_model(tmp_path, "nnUNetTrainer", cases(0.5), plans="p")
    other = write_model(tmp_path, "nnUNetTrainer", cases(0.5), plans="q")
    assert arms(one, other) == {"nnU-Net (p)": ["p"], "nnU-Net (q)": ["q"]}


def test_the_student_alone_is_the_first_without_a_teacher(tmp_path):
    models = [
        model(tmp_path, "a"),
        model(tmp_path, "b", "nnUNetTrainerStudent", None, num_epochs=20),
        model(tmp_path, "c", "nnUNetTrainerStudent", None, num_epochs=60),
    ]
    found = group_models(read_models(models))
    assert [arm.name for arm in found] == ["HLFD", "student alone, num_epochs 20", "student alone, num_epochs 60"]
    assert student_alone(found).models[0].folder.plans.plans_name == "b"
    assert student_alone(found[:1]) is None


def test_labels_of_the_scene_are_what_nnunet_writes(tmp_path):
    """The made-up summary has the keys of nnU-Net's own writer."""
    from nnunetv2.evaluation.evaluate_predictions import label_or_region_to_key

    folder = write_model(tmp_path, "nnUNetTrainer", cases((0.5, 0.5)), kind="regions")
    summary = json.loads((folder / "fold_0/validation/summary.json").read_text())
    assert list(summary["metric_per_case"][0]["metrics"]) == [label_or_region_to_key(each) for each in ((1, 2), 2)]
