"""Where a student's teacher is looked for: model folders and folds, by their names alone."""

import os
from dataclasses import replace

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.teacher.search import StudentSide, find_teacher, is_named

VARIABLE = "nnUNet_hlfd_teacher"
OWN, BASE = "nnUNetPlans_short_x", "nnUNetPlans_short"


def place(results, trainer, plans_name, *folds, checkpoint="checkpoint_final.pth"):
    folder = results / f"{trainer}__{plans_name}__2d"
    for fold in folds:
        (folder / f"fold_{fold}").mkdir(parents=True, exist_ok=True)
        (folder / f"fold_{fold}" / checkpoint).touch()
    return folder


def checkpoints(folder, *folds):
    return [folder / f"fold_{fold}" / "checkpoint_final.pth" for fold in folds]


@pytest.fixture
def seeker(tmp_path):
    """A student of fold 1 and an empty results folder."""
    student = StudentSide(
        plans=PlansManager({"plans_name": OWN, "dataset_name": "Dataset901_Phantom"}),
        plans_names=[OWN, BASE],
        configuration="2d",
        dataset_json={},
        fold=1,
        validation_cases=[],
        results_folder=tmp_path,
    )
    return student, tmp_path


def test_own_plans_come_before_the_base_and_nnunets_trainer_before_ours(seeker):
    student, results = seeker
    order = [(trainer, plans) for plans in (OWN, BASE) for trainer in ("nnUNetTrainer", "nnUNetTrainerTeacher")]
    for trainer, plans_name in reversed(order):  # each new one comes before all that are there
        folder = place(results, trainer, plans_name, 1)
        assert find_teacher(student, Settings()) == checkpoints(folder, 1)


def test_only_the_same_fold_is_taken(seeker):
    student, results = seeker
    place(results, "nnUNetTrainer", OWN, 0, 2)
    folder = place(results, "nnUNetTrainerTeacher", BASE, 1)
    assert find_teacher(student, Settings()) == checkpoints(folder, 1)


def test_folds_that_the_environment_names_are_taken_as_they_are(seeker, monkeypatch):
    student, results = seeker
    folder = place(results, "nnUNetTrainer", OWN, 0, 1, 4)
    monkeypatch.setenv(VARIABLE, os.pathsep.join(str(folder / f"fold_{fold}") for fold in (4, 0)))
    assert find_teacher(student, Settings()) == checkpoints(folder, 4, 0)
    assert is_named(folder / "fold_4")
    assert not is_named(folder / "fold_1")


@pytest.mark.parametrize("fold", [0, 3, "all"])
def test_another_fold_is_taken_on_request(seeker, fold):
    student, results = seeker
    folder = place(results, "nnUNetTrainer", OWN, 1, fold)
    assert find_teacher(student, Settings(teacher_fold=fold)) == checkpoints(folder, fold)


def test_another_checkpoint_is_taken_on_request(seeker):
    student, results = seeker
    place(results, "nnUNetTrainer", OWN, 1)
    folder = place(results, "nnUNetTrainer", BASE, 1, checkpoint="checkpoint_best.pth")
    found = find_teacher(student, Settings(teacher_checkpoint="checkpoint_best.pth"))
    assert found == [folder / "fold_1/checkpoint_best.pth"]


def test_a_student_of_all_cases_learns_from_fold_all_or_else_from_the_five_folds_together(seeker):
    student, results = seeker
    student = replace(student, fold="all")
    folder = place(results, "nnUNetTrainer", OWN, 0, 1, 2, 3)
    with pytest.raises(ValueError, match="No teacher found"):
        find_teacher(student, Settings())
    place(results, "nnUNetTrainer", OWN, 4)
    assert find_teacher(student, Settings()) == checkpoints(folder, 0, 1, 2, 3, 4)
    place(results, "nnUNetTrainer", OWN, "all")
    assert find_teacher(student, Settings()) == checkpoints(folder, "all")
    assert find_teacher(student, Settings(teacher_fold=2)) == checkpoints(folder, 2)


def test_the_environment_names_the_only_folder_that_is_looked_at(seeker, monkeypatch):
    student, results = seeker
    place(results, "nnUNetTrainer", OWN, 1)
    named = place(results / "elsewhere", "nnUNetTrainerX", "OtherPlans", 1)
    monkeypatch.setenv(VARIABLE, str(named))
    assert find_teacher(student, Settings()) == checkpoints(named, 1)
    monkeypatch.setenv(VARIABLE, str(results / "nowhere"))
    with pytest.raises(ValueError, match="No teacher found") as caught:
        find_teacher(student, Settings())
    looked, _ = str(caught.value).split("Train one with")
    assert looked.splitlines()[1:] == [f"  {results}/nowhere/fold_1/checkpoint_final.pth"]


def test_several_named_folders_teach_together_in_their_order(seeker, monkeypatch):
    student, results = seeker
    folders = [place(results / name, "nnUNetTrainer", OWN, 1) for name in ("b", "a")]
    monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, folders)))
    assert find_teacher(student, Settings()) == [file for folder in folders for file in checkpoints(folder, 1)]


def test_of_several_named_folders_each_has_to_hold_the_teacher(seeker, monkeypatch):
    student, results = seeker
    there = place(results / "there", "nnUNetTrainer", OWN, 1)
    other_fold = place(results / "other", "nnUNetTrainer", OWN, 0)
    monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, [there, other_fold])))
    with pytest.raises(ValueError, match="No teacher found") as caught:
        find_teacher(student, Settings())
    looked, _ = str(caught.value).split("Train one with")
    assert looked.splitlines()[1:] == [f"  {other_fold}/fold_1/checkpoint_final.pth"]


def test_of_several_folders_each_gives_fold_all_or_its_five_folds_to_a_student_of_all_cases(seeker, monkeypatch):
    student, results = seeker
    whole = place(results / "whole", "nnUNetTrainer", OWN, "all")
    five = place(results / "five", "nnUNetTrainer", OWN, *range(5))
    monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, [whole, five])))
    found = find_teacher(replace(student, fold="all"), Settings())
    assert found == [*checkpoints(whole, "all"), *checkpoints(five, *range(5))]


@pytest.mark.parametrize("name", ["a:b", "a;b", "with a space", "two\nlines", " ends ", "a" + os.pathsep])
def test_a_named_folder_that_exists_as_it_is_written_is_one_folder(seeker, monkeypatch, name):
    student, results = seeker
    folder = place(results / name, "nnUNetTrainer", OWN, 1)
    monkeypatch.setenv(VARIABLE, str(folder))
    assert find_teacher(student, Settings()) == checkpoints(folder, 1)


@pytest.mark.parametrize("end", ["\n", " ", os.pathsep])
def test_what_follows_the_named_folders_is_no_part_of_the_last(seeker, monkeypatch, end):
    student, results = seeker
    folders = [place(results / name, "nnUNetTrainer", OWN, 1) for name in ("b", "a")]
    monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, folders)) + end)
    assert find_teacher(student, Settings()) == [file for folder in folders for file in checkpoints(folder, 1)]


@pytest.mark.parametrize("there", ["checkpoint_best.pth", "checkpoint_latest.pth"])
@pytest.mark.parametrize("fold", [1, "all"])
def test_a_checkpoint_of_another_name_is_said_to_be_there_with_the_setting_that_takes_it(seeker, there, fold):
    student, results = seeker
    folder = place(results, "nnUNetTrainer", OWN, fold, checkpoint=there)
    with pytest.raises(ValueError, match="No teacher found") as caught:
        find_teacher(replace(student, fold=fold), Settings())
    line = (
        f"There is only {folder}/fold_{fold}/{there}. To learn from another checkpoint than checkpoint_final.pth, set: "
    )
    assert f"{line}nnUNetv2_hlfd plan ... -teacher_checkpoint {there}" in str(caught.value).splitlines()
    found = find_teacher(replace(student, fold=fold), Settings(teacher_checkpoint=there))
    assert found == [folder / f"fold_{fold}" / there]


def test_a_teacher_that_is_not_found_is_answered_with_where_it_was_looked_for_and_how_to_get_one(seeker):
    student, results = seeker
    with pytest.raises(ValueError, match=r"^No teacher found\. Looked at:") as caught:
        find_teacher(student, Settings())
    assert str(caught.value).splitlines() == [
        "No teacher found. Looked at:",
        *(
            f"  {results}/{trainer}__{plans_name}__2d/fold_1/checkpoint_final.pth"
            for plans_name in (OWN, BASE)
            for trainer in ("nnUNetTrainer", "nnUNetTrainerTeacher")
        ),
        f"Train one with: nnUNetv2_train Dataset901_Phantom 2d 1 -p {BASE}",
        "or name the folder of a trained model (.../TRAINER__PLANS__CONFIGURATION) with the environment variable "
        f"{VARIABLE} (several are separated by '{os.pathsep}'); another fold than the student's needs the setting "
        "teacher_fold, or is named itself (.../fold_2).",
    ]


def test_the_folds_0_to_4_are_among_the_places_that_were_looked_at_for_fold_all(seeker):
    student, results = seeker
    place(results, "nnUNetTrainer", BASE, 0, 1, 2, 3)
    with pytest.raises(ValueError, match="No teacher found") as caught:
        find_teacher(replace(student, fold="all"), Settings())
    message = str(caught.value)
    assert "fold_all/checkpoint_final.pth" in message
    assert "0-4" in message or f"nnUNetTrainer__{BASE}__2d/fold_4/checkpoint_final.pth" in message
