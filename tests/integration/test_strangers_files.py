"""Damaged and hostile checkpoints, plans.json and dataset.json: clear errors only, no code, bounded memory and time."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from damage import SAMPLES
from damage_series import SHARES, main
from helpers import make_trainer
from processes import run

MEMORY_MIB = 300
SECONDS = 20  # of the processor, for one file


@pytest.fixture(scope="module")
def interrupted(nnunet, variant, teacher_2d):
    """checkpoint_latest.pth of an HLFD run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
        trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", variant("short"))
        trainer.on_train_start()
    file = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(file))
    return file


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize(
    ("kind", "samples", "seed"),
    [
        pytest.param("", 300, 1, id="quick"),
        *(pytest.param(kind, SAMPLES, 2, marks=pytest.mark.slow) for kind in SHARES),
    ],
)
def test_damaged_and_hostile_files_end_in_a_clear_error_without_running_code(
    teacher_2d, interrupted, kind, samples, seed, record_property
):
    """In a process of its own, whose address space is limited and whose memory is measured."""
    printed = run(main, (teacher_2d.parent, interrupted, samples, seed, kind), os.environ)
    print(printed)
    result = json.loads(printed)
    counts = {name: sum(each.values()) for name, each in result["samples"].items()}
    failed = Counter(failure["kind"] for failure in result["failures"])
    record_property("tried", {f"damaged {name}": [counts[name] + failed[name], counts[name]] for name in counts})
    assert result["failures"] == []
    assert result["memory_growth_mib"] < MEMORY_MIB
    assert result["slowest_seconds"] < SECONDS
    assert sum(counts.values()) == samples
    assert all(each["refused"] > 0 for each in result["samples"].values()), "what refuses nothing tests nothing"
