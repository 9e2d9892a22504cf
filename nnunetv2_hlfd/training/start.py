"""What is looked at before nnU-Net makes a trainer, and what a refused trainer takes back."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nnunetv2_hlfd.datasets.locations import find_dataset, results_folder
from nnunetv2_hlfd.models.split import check_fold
from nnunetv2_hlfd.plans.plans_check import check_plans
from nnunetv2_hlfd.plans.preprocessed import check_preprocessed, find_plans
from nnunetv2_hlfd.training.find_trainer import find_any_trainer
from nnunetv2_hlfd.training.fold import parse_fold
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json


def check_arguments(
    dataset: str,
    configuration: str,
    fold: str,
    trainer: str,
    plans: str,
    device_name: str,
    *,
    continues: bool = False,
) -> tuple[str, int | str, torch.device]:
    """Refuse a training that could not start, before anything is made for it.

    Args:
        dataset: nnU-Net's name or ID.
        configuration: such as 2d.
        fold: a number or all.
        trainer: its name; this package's have to be in nnUNet_extTrainer.
        plans: their name.
        device_name: cpu, cuda or mps.
        continues: whether the run was started already, whatever its fold.

    Returns:
        Full name of the data set, fold and device.

    Raises:
        UserError: for the first of them that is not there, and preprocessed cases that are missing or of other plans.
    """
    device, number = choose_device(device_name), parse_fold(fold)
    results_folder()  # is set
    name = find_dataset(dataset)
    file = find_plans(name, plans)
    content = read_json(file)
    check_plans(content, file)
    check_preprocessed(content, configuration)
    if not continues:
        check_fold(name, number)
    find_any_trainer(trainer)
    return name, number, device


@contextlib.contextmanager
def nothing_left(trainer: Any) -> Iterator[None]:
    """If the block refuses a training, remove what nnU-Net's constructor made: the log, and folders without files.

    Args:
        trainer: of this package. One that has started keeps its log, which says what happened.
    """
    try:
        yield
    except UserError:
        log = Path(trainer.log_file)
        if not trainer.has_started:
            log.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the first folder that holds anything
                for folder in (log.parents[0], log.parents[1], log.parents[2]):  # of the fold, the model, the data set
                    if folder.is_dir():
                        folder.rmdir()
        raise
