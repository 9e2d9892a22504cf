"""Which of the images the teacher knows."""

import json

import pytest
from report_folders import write_model

from nnunetv2_hlfd.compress.inventory import trained_on
from nnunetv2_hlfd.deploy.source import Source
from nnunetv2_hlfd.models.folder import ModelFolder


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Two folds of a data set of four cases, on a machine without the data set."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "elsewhere"))
    dice = {0: {"a": 0.5, "b": 0.5}, 1: {"c": 0.5, "d": 0.5}}
    folder = write_model(tmp_path, "nnUNetTrainer", dice, folds=(0, 1))
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**content, "numTraining": 4}))
    return lambda *folds: Source(model=ModelFolder.open(folder), folds=folds, checkpoint="checkpoint_final.pth")


def test_a_fold_knows_the_cases_that_the_others_have_held_out(source):
    assert trained_on(source("0")) == {"c", "d"}
    assert trained_on(source("1")) == {"a", "b"}


def test_folds_together_know_all_cases(source):
    assert trained_on(source("0", "1")) == {"a", "b", "c", "d"}
