"""Damaged and hostile checkpoints, plans.json and dataset.json: clear errors only, no code, bounded memory and time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import damage
import pytest
from helpers import make_trainer

MEMORY_MIB = 300
SUPPORT = Path(damage.__file__).parent
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


@pytest.mark.parametrize(
    ("samples", "seed"), [pytest.param(300, 1, id="quick"), pytest.param(10_000, 2, id="full", marks=pytest.mark.slow)]
)
def test_damaged_and_hostile_files_end_in_a_clear_error_without_running_code(teacher_2d, interrupted, samples, seed):
    """In a process of its own, whose address space is limited and whose memory is measured."""
    command = [sys.executable, "damage_series.py", str(teacher_2d.parent), str(interrupted), str(samples), str(seed)]
    done = subprocess.run(command, cwd=SUPPORT, capture_output=True, text=True, env=os.environ.copy())
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    print(json.dumps(result))
    assert result["failures"] == []
    assert result["memory_growth_mib"] < MEMORY_MIB
    assert result["slowest_seconds"] < SECONDS
    counts = result["samples"]
    assert sum(sum(each.values()) for each in counts.values()) == samples
    assert all(each["refused"] > 0 for each in counts.values()), "a series that refuses nothing tests nothing"
