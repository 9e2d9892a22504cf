"""Which images are held out: labelled ones first, the teacher's own last, and the same ones whatever is added."""

import pytest

from nnunetv2_hlfd.compress.held_out import divide

CASES = [f"case_{number:03d}" for number in range(20)]


def test_a_fifth_is_held_out_and_the_others_train():
    divided = divide(CASES, 0.2)
    assert len(divided.held_out) == 4
    assert sorted([*divided.training, *divided.held_out]) == CASES


def test_the_choice_does_not_depend_on_the_order_and_hardly_on_further_images():
    before = divide(CASES, 0.2).held_out
    assert divide(CASES[::-1], 0.2).held_out == before
    after = divide([*CASES, "case_020"], 0.2).held_out
    assert len(set(before) - set(after)) <= 1


def test_it_is_not_that_of_the_names():
    assert divide(CASES, 0.2).held_out != CASES[:4]
    assert divide(CASES, 0.2).held_out != CASES[-4:]


@pytest.mark.parametrize(("number", "share", "held_out"), [(5, 0.01, 2), (5, 0.5, 2), (6, 0.5, 3), (20, 0.5, 10)])
def test_at_least_two_and_at_most_half_are_held_out(number, share, held_out):
    assert len(divide(CASES[:number], share).held_out) == held_out


def test_labelled_images_are_held_out_first():
    labelled = CASES[3:9]
    assert set(divide(CASES, 0.2, labelled=labelled).held_out) < set(labelled)
    assert set(labelled) < set(divide(CASES, 0.4, labelled=labelled).held_out)


def test_the_teachers_own_cases_train_even_where_they_are_labelled():
    own = CASES[:17]
    divided = divide(CASES, 0.2, labelled=own, own=own)
    assert set(CASES[17:]) < set(divided.held_out)
    assert len(divided.held_out) == 4


def test_a_file_of_names_decides_alone(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("case_003\n\n case_001 \n")
    assert divide(CASES, file, own=["case_003"]).held_out == ["case_001", "case_003"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["another", "case_001"], "not there or cannot be used: another"),
        (["case_001"], "at least 2 images"),
        (CASES[:19], "2 others to learn from, got 19 of 20"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, names, message):
    file = tmp_path / "names.txt"
    file.write_text("\n".join(names))
    with pytest.raises(ValueError, match=message):
        divide(CASES, file)


def test_a_missing_file_of_names_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.txt"):
        divide(CASES, tmp_path / "nothing.txt")
