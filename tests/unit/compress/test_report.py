"""The numbers of the report: absent labels count, means and differences are over the same images, and the verdict."""

import numpy as np
import pandas as pd
import pytest

from nnunetv2_hlfd.compress.picture import draw_agreement
from nnunetv2_hlfd.compress.report import verdict
from nnunetv2_hlfd.compress.scores import TEACHER, TRUTH, behind_teacher, mean_of, of_cases
from nnunetv2_hlfd.compress.sections import STUDENT, agreement, judge, labels, truth
from nnunetv2_hlfd.compress.speed import Speed
from nnunetv2_hlfd.report.bootstrap import Interval

SPEED = Speed(
    machine="a machine",
    cases=2,
    teacher=9.0,
    student=1.0,
    small=0.5,
    networks=2,
    teacher_parameters=30_000_000,
    teacher_macs=10**10,
    student_parameters=3_000_000,
    student_macs=10**9,
    archive_bytes=10**6,
    small_bytes=None,
)


def row(model, against, case, dice, nnunet_dice=None, label="tumor"):
    value = dice if nnunet_dice is None else nnunet_dice
    voxels = {"voxels": 10, "reference_voxels": 10}
    return {
        "model": model,
        "against": against,
        "case": case,
        "label": label,
        "dice": dice,
        "nnunet_dice": value,
    } | voxels


@pytest.fixture
def scores():
    """In image c there is no tumor: the student finds none, and the teacher does."""
    return pd.DataFrame(
        [
            *(row(STUDENT, TEACHER, case, dice) for case, dice in (("a", 0.9), ("b", 0.8), ("c", 0.0))),
            *(row(TEACHER, TRUTH, case, dice) for case, dice in (("a", 0.7), ("b", 0.6), ("c", 0.0))),
            *(row(STUDENT, TRUTH, case, dice) for case, dice in (("a", 0.65), ("b", 0.62))),
            row(STUDENT, TRUTH, "c", 1.0, np.nan),
        ]
    )


def test_a_label_that_is_rightly_not_found_counts(scores):
    assert mean_of(of_cases(scores, STUDENT, TRUTH)).value == pytest.approx((0.65 + 0.62 + 1) / 3)
    assert of_cases(scores, STUDENT, TRUTH, measure="nnunet_dice").mean() == pytest.approx((0.65 + 0.62) / 2)
    assert behind_teacher(scores, STUDENT).value == pytest.approx((-0.05 + 0.02 + 1) / 3)


def test_no_interval_of_dice_leaves_its_range():
    few = pd.Series([0.02, 0.4, 0.99])
    assert mean_of(few).low == 0
    assert mean_of(few).high == 1
    assert mean_of(-few, lowest=-1.0).low == -1


def test_the_difference_is_that_of_the_means(scores):
    means = [mean_of(of_cases(scores, name, TRUTH)).value for name in (STUDENT, TEACHER)]
    assert behind_teacher(scores, STUDENT).value == pytest.approx(means[0] - means[1])
    [section] = truth(scores, [STUDENT], ["tumor"], 0.01)
    [[_, teacher, *_], [_, student, nnunets, difference, _]] = section.content[0].rows
    assert float(student[:5]) - float(teacher[:5]) == pytest.approx(float(difference[:6]), abs=2e-3)
    assert nnunets == "0.635"


def test_without_labels_there_is_no_section_on_the_truth(scores):
    agreeing = scores[scores["against"] == TEACHER]
    assert truth(agreeing, [STUDENT], ["tumor"], 0.01) == []
    assert "truth" not in verdict(agreeing, SPEED, 0.01)


def test_the_first_line_has_agreement_size_speed_and_the_verdict_against_the_truth(scores):
    line = verdict(scores, SPEED, 0.01)
    assert line.startswith("The student agrees with its teacher at Dice 0.567 [")
    assert (
        "on 3 held-out images; it is 20 x smaller and 9 x faster, 18 x with predict.pyz; against the truth it" in line
    )
    assert "not known whether it is as good as its teacher (+0.323 [" in line
    assert line.endswith("on 3 of them")


def test_where_nobody_finds_a_label_the_agreement_is_not_praised():
    empty = pd.DataFrame([row(STUDENT, TEACHER, case, 1.0, np.nan) for case in "ab"])
    assert verdict(empty, SPEED, 0.01).startswith("On 2 held-out images neither the student nor its teacher finds")


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.03, "better than its teacher"),
        (-0.005, 0.03, "not worse than its teacher"),
        (-0.03, -0.02, "worse than its teacher"),
        (-0.03, 0.01, "not known whether it is as good as its teacher"),
        (np.nan, np.nan, "not known whether it is as good as its teacher"),
    ],
)
def test_the_words_of_the_verdict(low, high, words):
    assert judge(Interval(value=0.0, low=low, high=high), 0.01, 8).startswith(f"{words} (+0.000")


def test_the_number_of_images_that_a_verdict_would_take_is_told():
    assert "; to know it, about 32 held-out images with labels would be needed" in judge(
        Interval(value=0.0, low=-0.02, high=0.02), 0.01, 8
    )


def test_a_label_that_only_one_of_them_finds_is_the_worst(scores):
    [[name, mean, nnunets, images, worst, _]] = labels(scores, ["tumor"]).content[0].rows
    assert (name, nnunets, images, worst) == ("tumor", "0.567", "3", "0.000")
    assert mean.startswith("0.567")


def test_the_picture_shows_every_image_and_size(scores):
    section = agreement(scores, [STUDENT], 5)
    assert [row[3] for row in section.content[0].rows] == ["0.000 (c)"]
    images, sizes = draw_agreement(scores[scores["against"] == TEACHER]).axes
    assert list(images.lines[0].get_ydata()) == [0.0, 0.8, 0.9]
    assert list(sizes.lines[0].get_xdata()) == [10, 10, 10]
