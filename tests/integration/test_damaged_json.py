"""Damaged and hostile JSON files of models, data sets and studies through all that reads them."""

import json
import os

import pytest
from json_series import main
from processes import run

SECONDS = 20  # of the processor, for one file


@pytest.fixture(scope="module")
def models(train, variant, teacher_2d):
    """A teacher and a student that have been trained and validated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
        student = train("nnUNetTrainerHLFD", plans=variant("short"))
    return teacher_2d.parent, student.parent


@pytest.mark.parametrize(
    ("samples", "seed"), [pytest.param(15, 1, id="quick"), pytest.param(10_000, 2, id="full", marks=pytest.mark.slow)]
)
def test_nothing_but_a_clear_error_comes_out(models, samples, seed):
    printed = run(main, (*models, samples, seed), os.environ)
    print(printed)
    result = json.loads(printed)
    assert result["failures"] == []
    assert result["slowest_seconds"] < SECONDS
    for outcome in ("refused", "read"):
        assert sum(counts.get(outcome, 0) for counts in result["counts"].values()) > samples
