"""Which cases a fold has held out: from its validation and the data set's split, whatever wrote their paths."""

import json

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.models.split import held_out_cases, split_of, validated_cases

DATASET = "Dataset901_Made"
CASES = ["1.2.840.1", "1.2.840.2", "Müller a", "p.1", "p.2"]


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model of five cases, of whose folds nothing is there."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    return ModelFolder(
        path=tmp_path / "results",
        plans=PlansManager({"dataset_name": DATASET}),
        dataset_json={"file_ending": ".nii.gz", "numTraining": 5},
        configuration="2d",
        trainer="nnUNetTrainer",
        network_trainer="nnUNetTrainer",
        mirror_axes=None,
    )


def validate(model, fold, cases, folder="/results/fold_0/validation/", ending=".nii.gz"):
    summary = model.fold(fold).file("validation/summary.json")
    summary.parent.mkdir(parents=True)
    entries = [{"prediction_file": f"{folder}{case}{ending}"} for case in cases]
    summary.write_text(json.dumps({"metric_per_case": entries}), encoding="utf-8")


def split(tmp_path, *folds):
    file = tmp_path / "preprocessed" / DATASET / "splits_final.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps([{"train": train, "val": val} for train, val in folds]), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "folder",
    [
        "/results/fold_0/validation/",
        "D:\\results\\fold_0\\validation\\",
        "\\\\server\\share\\fold_0\\",
        "D:/a b/fold_0/",
        "",
    ],
)
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".png"])
def test_recorded_paths_of_any_machine_and_names_with_dots_are_read(model, folder, ending):
    model.dataset_json["file_ending"] = ending
    validate(model, 0, CASES[:3], folder, ending)
    assert validated_cases(model.fold(0), ending) == held_out_cases(model, "0") == CASES[:3]


def test_nothing_is_known_of_a_fold_that_was_never_validated(model, tmp_path):
    """The split may be another one than that of its training."""
    split(tmp_path, (CASES[1:], CASES[:1]))
    assert held_out_cases(model, "0") == []


def test_fold_all_has_held_out_nothing_though_it_was_validated(model):
    validate(model, "all", CASES)
    assert held_out_cases(model, "all") == []


def test_fold_all_under_the_name_of_another_fold_is_known_by_the_size_of_the_data_set(model):
    validate(model, 0, CASES)
    assert held_out_cases(model, "0") == []


def test_a_case_that_the_split_trains_on_as_well_was_seen(model, tmp_path):
    split(tmp_path, (CASES[1:], CASES[:2]))
    validate(model, 0, CASES[:2])
    assert held_out_cases(model, "0") == CASES[:1]


@pytest.mark.parametrize("fold", ["1", "5", "x"])
def test_a_fold_beyond_the_split_is_judged_by_its_validation(model, tmp_path, fold):
    """nnU-Net draws the cases of such a fold at random."""
    split(tmp_path, (CASES[1:], CASES[:1]))
    validate(model, fold, CASES[:2])
    assert held_out_cases(model, fold) == CASES[:2]
    assert split_of(DATASET, fold) == ([], [])


def test_without_nnunets_folders_the_validation_alone_counts(model, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed")
    validate(model, 0, CASES[:2])
    assert held_out_cases(model, "0") == CASES[:2]


@pytest.mark.parametrize("text", ["", "[{}]", '{"0": []}', "[[]]"])
def test_a_damaged_split_is_named(model, tmp_path, text):
    file = split(tmp_path)
    file.write_text(text)
    validate(model, 0, CASES[:1])
    with pytest.raises(ValueError, match=r"splits_final\.json is damaged"):
        held_out_cases(model, "0")
