"""A trainer that only tries something out: for dry runs and benchmarks."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from nnunetv2.run.run_training import get_trainer_from_args

from nnunetv2_hlfd.datasets.locations import find_dataset
from nnunetv2_hlfd.training.fold import parse_fold
from nnunetv2_hlfd.training.scheduled_trainer import ScheduledTrainer
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.errors import UserError


@contextlib.contextmanager
def throwaway_trainer(
    dataset: str, configuration: str, fold: str, name: str, plans: str, device_name: str
) -> Iterator[ScheduledTrainer]:
    """A trainer of this package as nnUNetv2_train builds it, which leaves neither folder nor log behind.

    Raises:
        UserError: for what nnU-Net does not find, a device that is not there, or another package's trainer.
    """
    device = choose_device(device_name)
    number = parse_fold(fold)
    if device.type == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)
    try:
        with _without_wandb():
            trainer = get_trainer_from_args(find_dataset(dataset), configuration, number, name, plans, device=device)
    except (RuntimeError, FileNotFoundError) as error:  # nnU-Net's words for a trainer, configuration or file it lacks
        raise UserError(str(error)) from error
    try:
        if not isinstance(trainer, ScheduledTrainer):
            raise UserError(f"Expected a trainer of this package, such as -tr nnUNetTrainerHLFD, got {name}.")
        yield trainer
    finally:
        _remove_traces(Path(trainer.log_file))


@contextlib.contextmanager
def _without_wandb() -> Iterator[None]:
    """Switch off Weights & Biases while a trainer is built: it would replace the curves of an earlier run."""
    wanted = os.environ.pop("nnUNet_wandb_enabled", None)
    try:
        yield
    finally:
        if wanted is not None:
            os.environ["nnUNet_wandb_enabled"] = wanted


def real_batches(trainer: ScheduledTrainer, number: int) -> list[dict[str, Any]]:
    """Augmented training batches of a trainer."""
    loaders = trainer.get_dataloaders()
    batches = [next(loaders[0]) for _ in range(number)]
    for loader in loaders:
        if hasattr(loader, "_finish"):
            loader._finish()
    return batches


def _remove_traces(log_file: Path) -> None:
    """nnU-Net's constructor makes the fold's folder and a log; leave neither behind."""
    log_file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a folder that holds something else stays
        for folder in (log_file.parent, log_file.parent.parent, log_file.parent.parent.parent):
            folder.rmdir()
