"""Which cases 8 bits are calibrated on and judged by, and which of them a fold may have been trained on."""

import json
import shutil

import pytest
from helpers import make_trainer

from nnunetv2_hlfd.deploy.quantize import fold_cases
from nnunetv2_hlfd.models.folder import ModelFolder

DATASET = "Dataset901_Phantom"


@pytest.fixture
def model(teacher_2d, tmp_path):
    """A copy of a trained model, of whose folds a test may make others."""
    ignored = shutil.ignore_patterns("*.nii.gz", "*.png", "checkpoint_[bl]*")
    return ModelFolder.open(shutil.copytree(teacher_2d.parent, tmp_path / teacher_2d.parent.name, ignore=ignored))


def stock_split(nnunet, fold):
    """What nnU-Net's own trainer trains and validates on."""
    training, validation = make_trainer(nnunet, "nnUNetTrainer", "nnUNetPlans", fold=fold).do_split()
    return sorted(training), sorted(validation)


def test_a_fold_is_calibrated_on_its_training_cases_and_judged_by_those_it_has_held_out(model, nnunet):
    cases = fold_cases(model, "0")
    assert (sorted(cases.calibration), sorted(cases.judged)) == stock_split(nnunet, 0)
    assert cases.learned == []


def test_fold_all_has_learned_from_every_case(model, nnunet):
    (model.path / "fold_0").rename(model.path / "fold_all")
    cases = fold_cases(model, "all")
    assert (list(cases.calibration), list(cases.judged)) == stock_split(nnunet, "all")
    assert cases.learned == cases.judged


def test_a_fold_beyond_the_split_is_judged_by_its_own_validation(model, nnunet):
    """nnU-Net draws its cases at random."""
    (model.path / "fold_0").rename(model.path / "fold_7")
    training, validation = stock_split(nnunet, 7)
    results = {"metric_per_case": [{"prediction_file": f"{case}.nii.gz"} for case in validation]}
    summary = model.fold(7).file("validation/summary.json")
    summary.write_text(json.dumps(results))
    cases = fold_cases(model, "7")
    assert (list(cases.calibration), list(cases.judged), cases.learned) == (training, validation, [])
    summary.unlink()
    with pytest.raises(ValueError, match=r"expected fold 7 in .*splits_final\.json or its validation results in "):
        fold_cases(model, "7")


def test_cases_of_another_split_than_that_of_the_training_may_have_been_learned(model, nnunet):
    (model.path / "fold_0").rename(model.path / "fold_1")
    cases = fold_cases(model, "1")
    assert sorted(cases.judged) == stock_split(nnunet, 1)[1]
    assert cases.learned == cases.judged, "it was validated on those of fold 0"
