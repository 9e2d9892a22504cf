"""Damaged and hostile JSON files of models, data sets and studies through all that reads them."""

import json
import os

import pytest
from damage import SAMPLES
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


KINDS = """
validation/summary.json, report
distillation.json, report
debug.json, report
plans.json, report
plans.json, export
plans.json, predict
dataset.json, report
dataset.json, export
dataset.json, predict
dataset_fingerprint.json, export
export.json, model card
distillation.json, export
validation/summary.json, teacher
dataset.json, teacher
plans.json, teacher
export.json, predict
splits_final.json, teacher
splits_final.json, study
study.yaml, study
""".strip().splitlines()


@pytest.mark.faults("damaged JSON files")
@pytest.mark.parametrize(
    ("kind", "samples", "seed"),
    [
        pytest.param("", 5, 1, id="quick"),
        *(pytest.param(kind, SAMPLES, 2, id=kind, marks=pytest.mark.slow) for kind in KINDS),
    ],
)
def test_nothing_but_a_clear_error_comes_out(models, kind, samples, seed, record_property):
    printed = run(main, (*models, samples, seed, kind), os.environ)
    print(printed)
    result = json.loads(printed)
    assert kind or list(result["counts"]) == KINDS
    survived = {name: counts.get("refused", 0) + counts.get("read", 0) for name, counts in result["counts"].items()}
    record_property("tried", {f"damaged {name}": [samples, survived[name]] for name in survived})
    assert result["failures"] == []
    assert result["slowest_seconds"] < SECONDS
    assert all(number == samples for number in survived.values())
    if not kind:
        for outcome in ("refused", "read"):
            assert sum(counts.get(outcome, 0) for counts in result["counts"].values()) > samples
