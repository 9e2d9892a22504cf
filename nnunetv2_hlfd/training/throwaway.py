"""A trainer that only tries something out: for dry runs and benchmarks."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from nnunetv2.run.run_training import get_trainer_from_args

from nnunetv2_hlfd.datasets.locations import results_folder
from nnunetv2_hlfd.training.scheduled_trainer import ScheduledTrainer
from nnunetv2_hlfd.training.start import check_arguments
from nnunetv2_hlfd.utilities.atomic import scratch_folder
from nnunetv2_hlfd.utilities.errors import UserError


@contextlib.contextmanager
def throwaway_trainer(
    dataset: str, configuration: str, fold: str, name: str, plans: str, device_name: str
) -> Iterator[ScheduledTrainer]:
    """A trainer of this package as nnUNetv2_train builds it, which leaves neither folder nor log behind.

    Raises:
        UserError: for what nnU-Net does not find, a device that is not there, or another package's trainer.
    """
    dataset, number, device = check_arguments(dataset, configuration, fold, name, plans, device_name)
    if device.type == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)
    with scratch_folder() as scratch:
        with _environment(scratch):
            trainer = get_trainer_from_args(dataset, configuration, number, name, plans, device=device)
        if not isinstance(trainer, ScheduledTrainer):
            raise UserError(f"Expected a trainer of this package, such as -tr nnUNetTrainerHLFD, got {name}.")
        _name_real_folders(trainer, scratch)
        yield trainer


@contextlib.contextmanager
def _environment(scratch: Path) -> Iterator[None]:
    """Let nnU-Net's constructor make its folder and log elsewhere, and replace no curves of Weights & Biases."""
    before = {name: os.environ.get(name) for name in ("nnUNet_results", "nnUNet_wandb_enabled")}
    os.environ["nnUNet_results"] = str(scratch)
    os.environ.pop("nnUNet_wandb_enabled", None)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _name_real_folders(trainer: ScheduledTrainer, scratch: Path) -> None:
    """Where a training would write and reads: its checks look there."""
    results = str(results_folder())
    for name in ("output_folder_base", "output_folder", "folder_with_segs_from_previous_stage"):
        if (folder := getattr(trainer, name)) is not None:
            setattr(trainer, name, folder.replace(str(scratch), results, 1))


def real_batches(trainer: ScheduledTrainer, number: int) -> list[dict[str, Any]]:
    """Augmented training batches of a trainer."""
    loaders = trainer.get_dataloaders()
    batches = [next(loaders[0]) for _ in range(number)]
    for loader in loaders:
        if hasattr(loader, "_finish"):
            loader._finish()
    return batches
