"""The numbers of a report: means over cases and runs, RVD, paired comparisons, the gap and what of it is recovered."""

import json
import math

import numpy as np
import pytest
from report_folders import cases, write_model

from nnunetv2_hlfd.report.arms import Arm, group_models
from nnunetv2_hlfd.report.models import read_models
from nnunetv2_hlfd.report.statistics import wilcoxon_p
from nnunetv2_hlfd.report.summary import MEAN, summarize

RANDOM = np.random.default_rng(0)
ALONE = RANDOM.uniform(0.3, 0.6, 20)


def summary(teacher, *students, folds=(0,)):
    models = read_models([teacher, *students])
    return summarize(Arm(name="teacher", models=models[:1]), group_models(models[1:]), list(folds))


def student(parent, dice, seed=1, **more):
    return write_model(
        parent, "nnUNetTrainerStudent", dice, plans=f"alone.s{seed}", settings={"beta": 0.9}, seed=seed, **more
    )


def distilled(parent, dice, title="HLFD", seed=1, **more):
    return write_model(
        parent,
        f"nnUNetTrainer{title}",
        dice,
        plans=f"{title}.s{seed}",
        settings={"beta": 0.9},
        seed=seed,
        title=title,
        **more,
    )


def row(table, **keys):
    [found] = table.loc[np.logical_and.reduce([table[key] == value for key, value in keys.items()])].itertuples()
    return found


# Means


def test_mean_and_deviation_are_over_runs_of_means_over_cases(tmp_path):
    found = summary(
        write_model(tmp_path, "nnUNetTrainer", cases(0.9, 0.8)),
        student(tmp_path, cases(0.4, 0.6), seed=1),
        student(tmp_path, cases(0.5, 0.9), seed=2),
        student(tmp_path, cases(0.7, 0.9), seed=3),
    )
    alone = row(found.arms, arm="student alone", label="lesion")
    assert (alone.runs, alone.dice_mean, alone.dice_std) == (3, pytest.approx(2 / 3), pytest.approx(0.1527525))
    teacher = row(found.arms, arm="teacher", label="lesion")
    assert (teacher.runs, teacher.dice_mean) == (1, pytest.approx(0.85))
    assert math.isnan(teacher.dice_std)


def test_rvd_is_signed_and_absolute_and_leaves_out_cases_without_the_label(tmp_path):
    parts = [
        write_model(
            tmp_path,
            "nnUNetTrainer",
            {fold: {f"case_{fold}": 0.5}},
            folds=(fold,),
            n_pred=predicted,
            n_ref=true,
            plans=f"p{fold}",
        )
        for fold, (predicted, true) in enumerate([(50, 100), (300, 100), (10, 0)])
    ]
    whole = write_model(tmp_path, "nnUNetTrainer", {fold: {f"case_{fold}": 0.5} for fold in range(3)}, folds=(0, 1, 2))
    for fold, part in enumerate(parts):
        (part / f"fold_{fold}/validation/summary.json").replace(whole / f"fold_{fold}/validation/summary.json")
    found = summary(
        whole, student(tmp_path, {fold: {f"case_{fold}": 0.5} for fold in range(3)}, folds=(0, 1, 2)), folds=(0, 1, 2)
    )
    teacher = row(found.arms, arm="teacher", label="lesion")
    assert teacher.rvd_mean == pytest.approx((-0.5 + 2) / 2)
    assert teacher.absolute_rvd_mean == pytest.approx((0.5 + 2) / 2)
    assert (teacher.absent, teacher.dice_mean) == (1, 0.5)


def test_several_labels_have_a_mean_for_each_case_in_which_a_label_that_is_absent_and_not_predicted_is_right(tmp_path):
    found = summary(
        write_model(tmp_path, "nnUNetTrainer", cases((0.9, 0.7), (0.8, math.nan)), kind="labels"),
        student(tmp_path, cases((0.5, 0.3), (0.6, math.nan)), kind="labels"),
    )
    rows = {label: row(found.arms, arm="student alone", label=label) for label in ("kidney", "tumor", MEAN)}
    dice = {label: found_row.dice_mean for label, found_row in rows.items()}
    assert dice == pytest.approx({"kidney": 0.55, "tumor": (0.3 + 1) / 2, MEAN: (0.4 + 0.8) / 2})
    assert rows["tumor"].nnunet_dice_mean == pytest.approx(0.3)
    assert (rows["tumor"].absent, rows["tumor"].specificity_mean) == (1, 1)


def test_a_false_positive_on_an_absent_label_costs_in_the_mean_and_in_the_difference_over_the_same_cases(tmp_path):
    """nnU-Net's NaN would make it 0.8 against 0.6, with a difference of 0."""
    dice = {"case_000": 0.8, "case_001": 0.8, "case_002": 0.8, "case_003": math.nan}
    empty, wrong = student(tmp_path, dice), distilled(tmp_path, dice)
    file = wrong / "fold_0/validation/summary.json"
    content = json.loads(file.read_text())
    content["metric_per_case"][3]["metrics"]["1"] |= {"Dice": 0.0, "n_pred": 5, "FP": 5}
    file.write_text(json.dumps(content))
    found = summary(write_model(tmp_path, "nnUNetTrainer", dice), empty, wrong)
    alone, hlfd = (row(found.arms, arm=arm, label="lesion") for arm in ("student alone", "HLFD"))
    assert (alone.dice_mean, hlfd.dice_mean) == pytest.approx((0.85, 0.6))
    assert (alone.nnunet_dice_mean, hlfd.nnunet_dice_mean) == pytest.approx((0.8, 0.6))
    assert (alone.specificity_mean, hlfd.specificity_mean) == (1, 0)
    [comparison] = found.comparisons
    assert comparison.difference.value == pytest.approx(hlfd.dice_mean - alone.dice_mean)
    assert (comparison.num_cases, comparison.losing) == (4, 0.25)


# Comparisons


def test_a_constant_gain_is_found_exactly(tmp_path):
    found = summary(
        write_model(tmp_path, "nnUNetTrainer", cases(*(ALONE + 0.2))),
        student(tmp_path, cases(*ALONE)),
        distilled(tmp_path, cases(*(ALONE + 0.05))),
    )
    [comparison] = found.comparisons
    assert (comparison.arm, comparison.reference, comparison.num_cases) == ("HLFD", "student alone", 20)
    interval = comparison.difference
    assert [interval.value, interval.low, interval.high] == pytest.approx([0.05] * 3)
    assert comparison.losing == 0
    assert comparison.holm == comparison.wilcoxon < 1e-4
    [gap] = found.gaps
    assert gap.is_there
    assert gap.difference.value == pytest.approx(0.2)
    share = gap.recovered["HLFD"]
    assert [share.value, share.low, share.high] == pytest.approx([0.25] * 3)


def test_seeds_are_averaged_before_cases_are_paired(tmp_path):
    first, second = RANDOM.normal(0.05, 0.1, (2, 20))
    found = summary(
        write_model(tmp_path, "nnUNetTrainer", cases(*(ALONE + 0.2))),
        student(tmp_path, cases(*ALONE)),
        distilled(tmp_path, cases(*(ALONE + first))),
        distilled(tmp_path, cases(*(ALONE + second)), seed=2),
    )
    [comparison] = found.comparisons
    mean = (first + second) / 2
    assert comparison.num_cases == 20
    assert comparison.difference.value == pytest.approx(mean.mean())
    assert comparison.wilcoxon == pytest.approx(wilcoxon_p(mean))
    assert comparison.losing == np.mean(mean < -0.05)


def test_methods_are_adjusted_among_themselves_and_exploratory_pairs_apart(tmp_path):
    shifts = {"HLFD": 0.1, "KD": 0.02, "AT": -0.1}
    noise = RANDOM.normal(0, 0.05, (3, 20))
    found = summary(
        write_model(tmp_path, "nnUNetTrainer", cases(*(ALONE + 0.2))),
        distilled(tmp_path, cases(*(ALONE + shifts["HLFD"] + noise[0])), "HLFD"),
        student(tmp_path, cases(*ALONE)),
        distilled(tmp_path, cases(*(ALONE + shifts["KD"] + noise[1])), "KD"),
        distilled(tmp_path, cases(*(ALONE + shifts["AT"] + noise[2])), "AT"),
    )
    pairs = [(each.arm, each.reference) for each in found.comparisons]
    assert pairs == [
        ("HLFD", "student alone"),
        ("KD", "student alone"),
        ("AT", "student alone"),
        ("KD", "HLFD"),
        ("AT", "HLFD"),
        ("AT", "KD"),
    ]
    assert [each.is_question for each in found.comparisons] == [True] * 3 + [False] * 3
    for family in (found.comparisons[:3], found.comparisons[3:]):
        smallest = min(family, key=lambda each: each.wilcoxon)
        assert smallest.holm == pytest.approx(3 * smallest.wilcoxon)
    losing = next(each for each in found.comparisons if each.arm == "AT")
    assert losing.losing == np.mean(shifts["AT"] + noise[2] < -0.05)


@pytest.mark.parametrize(("gain", "spread", "there"), [(0.2, 0.1, True), (0.01, 0.0, False), (0.05, 0.5, False)])
def test_a_share_is_told_only_of_a_gap_that_is_there(gain, spread, there, tmp_path):
    """At least 0.02 Dice, with an interval that excludes 0."""
    found = summary(
        write_model(tmp_path, "nnUNetTrainer", cases(*(ALONE + gain + spread * np.linspace(-1, 1, 20)))),
        student(tmp_path, cases(*ALONE)),
        distilled(tmp_path, cases(*(ALONE + 0.05))),
    )
    [gap] = found.gaps
    assert gap.is_there is there
    assert set(gap.recovered) == ({"HLFD"} if there else set())


def test_without_a_student_alone_there_is_no_gap(tmp_path):
    found = summary(
        write_model(tmp_path, "nnUNetTrainer", cases(0.9, 0.8)),
        distilled(tmp_path, cases(0.5, 0.6)),
        distilled(tmp_path, cases(0.6, 0.6), "KD"),
    )
    assert found.gaps == []
    assert [(each.arm, each.reference) for each in found.comparisons] == [("KD", "HLFD")]


def test_of_a_label_that_no_case_has_nothing_differs_and_there_is_no_gap(tmp_path):
    values = [(0.5, math.nan), (0.6, math.nan)]
    found = summary(
        write_model(tmp_path, "nnUNetTrainer", cases(*values), kind="labels"),
        student(tmp_path, cases(*values), kind="labels"),
        distilled(tmp_path, cases(*values), kind="labels"),
    )
    assert {each.label for each in found.comparisons} == {"kidney", "tumor", MEAN}
    assert [each.wilcoxon for each in found.comparisons] == [1, 1, 1]
    assert not any(gap.is_there for gap in found.gaps)


# Arms


def test_each_architecture_is_compared_with_its_own_student_alone(tmp_path):
    def model(trainer, student, shift, title=None):
        settings = {"beta": 0.9, "student": student}
        return write_model(
            tmp_path, trainer, cases(*(ALONE + shift)), plans=student, settings=settings, seed=1, title=title
        )

    found = summary(
        write_model(tmp_path, "nnUNetTrainer", cases(*(ALONE + 0.3))),
        model("nnUNetTrainerStudent", "resnet18", 0.0),
        model("nnUNetTrainerStudent", "resnet18_w8", -0.1),
        model("nnUNetTrainerHLFD", "resnet18_w8", 0.05, "HLFD"),
        model("nnUNetTrainerKD", "unet_w8", 0.05, "KD"),
    )
    [asked] = [each for each in found.comparisons if each.is_question]
    assert (asked.arm, asked.reference) == ("HLFD", "student alone, student resnet18_w8")
    assert asked.difference.value == pytest.approx(0.15)
    across = next(each for each in found.comparisons if each.arm == "KD")
    assert (across.reference, across.same_architecture) == ("student alone, student resnet18", False)
    assert {gap.alone: set(gap.recovered) for gap in found.gaps} == {
        "student alone, student resnet18": set(),
        "student alone, student resnet18_w8": {"HLFD"},
    }


def test_runs_of_one_seed_are_compared_with_each_other(tmp_path):
    """Seeds that differ more than the arms do not widen the interval of the difference."""
    shifts, gain = {1: 0.1, 2: -0.1, 3: 0.0}, RANDOM.normal(0.02, 0.005, 20)
    teacher = write_model(tmp_path, "nnUNetTrainer", cases(*(ALONE + 0.2)))
    alone = [student(tmp_path, cases(*(ALONE + shift)), seed=seed) for seed, shift in shifts.items()]
    same = [distilled(tmp_path, cases(*(ALONE + gain + shift)), seed=seed) for seed, shift in reversed(shifts.items())]
    other = [distilled(tmp_path, cases(*(ALONE + gain + shift)), "KD", seed=seed + 7) for seed, shift in shifts.items()]
    found = summary(teacher, *alone, *same, *other)
    paired, unpaired = (each.difference for each in found.comparisons[:2])
    assert paired.value == pytest.approx(unpaired.value) == pytest.approx(gain.mean())
    assert paired.excludes_zero
    assert not unpaired.excludes_zero


def test_seeds_with_other_folds_are_one_arm(tmp_path):
    """Their teachers have one name, whatever the folds that they taught."""
    folds = {1: (0, 1), 2: (0,)}
    dice = {fold: {f"case_{fold}": 0.5} for fold in (0, 1)}
    models = read_models(
        [distilled(tmp_path, {fold: dice[fold] for fold in of}, seed=seed, folds=of) for seed, of in folds.items()]
    )
    assert [len(arm.models) for arm in group_models(models)] == [2]
