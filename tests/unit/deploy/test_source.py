"""Which folds of a model are deployed, and what is said where they are not there."""

import shutil

import pytest

from nnunetv2_hlfd.deploy.source import read_source
from nnunetv2_hlfd.models.fold import BEST, FINAL


@pytest.fixture
def model(teacher_2d, tmp_path):
    """A copy of a trained model with fold 0, without files that prediction does not need."""
    ignored = shutil.ignore_patterns("validation", "*.png", "checkpoint_latest.pth")
    return shutil.copytree(teacher_2d.parent, tmp_path / "model", ignore=ignored)


def test_fold_all_is_left_out_where_numbered_folds_are_there(model):
    shutil.copytree(model / "fold_0", model / "fold_all")
    assert read_source(model, None, FINAL).folds == ["0"]
    assert read_source(model, ["all"], FINAL).folds == ["all"]
    shutil.rmtree(model / "fold_0")
    assert read_source(model, None, FINAL).folds == ["all"]


def test_a_missing_fold_is_answered_with_those_that_are_there(model):
    with pytest.raises(ValueError, match=r"fold_3/checkpoint_final\.pth, found none\. Folds with .* \(-f\): 0\.$"):
        read_source(model, ["0", "3"], FINAL)


def test_checkpoints_of_other_names_are_named_where_the_wanted_one_is_missing(model):
    (model / "fold_0" / FINAL).unlink()
    with pytest.raises(ValueError, match=r"found only checkpoint_best\.pth\. Name another file with -chk\.$"):
        read_source(model, None, FINAL)
    assert read_source(model, None, BEST).folds == ["0"]
