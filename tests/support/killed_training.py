"""Trainings that a test kills, through nnU-Net's own functions and without the final validation; for `Process`."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

SLOW_SAVE_SECONDS = 1


def train(trainer: str, plans: str, *, continues: bool, slow_save: bool = False, kills_worker: bool = False) -> None:
    """Train in 2d.

    Args:
        trainer: name of its class.
        plans: plans name.
        continues: as nnU-Net's --c.
        slow_save: pause between writing and renaming a checkpoint, so that a kill can fall in between.
        kills_worker: kill a process that loads data in the second epoch.
    """
    torch.set_num_threads(1)
    if slow_save:
        _pause_before_renaming()
    device = torch.device("cpu")
    run = get_trainer_from_args("Dataset901_Phantom", "2d", 0, trainer, plans, continues, device=device)
    maybe_load_checkpoint(run, continues, False)
    print("starts at", run.current_epoch, flush=True)
    if kills_worker:
        _kill_worker_in_the_second_epoch(run)
    run.run_training()


def _pause_before_renaming() -> None:
    rename = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.parent.name.startswith(".partial") and "checkpoint" in self.name:
            time.sleep(SLOW_SAVE_SECONDS)
        return rename(self, target)

    Path.replace = replace


def _kill_worker_in_the_second_epoch(trainer: Any) -> None:
    step = trainer.train_step

    def train_step(batch: dict[str, Any]) -> Any:
        if trainer.current_epoch == 1:
            os.kill(trainer.dataloader_train._processes[0].pid, signal.SIGKILL)
        return step(batch)

    trainer.train_step = train_step
