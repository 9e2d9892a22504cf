"""`nnUNetv2_hlfd train`: nnU-Net's own training with this package's trainers in reach, and its dry run."""

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_hlfd.datasets.locations import find_dataset
from nnunetv2_hlfd.models.checkpoints import read_checkpoint, wrapper_hint
from nnunetv2_hlfd.settings.settings import OVERWRITE_VARIABLE
from nnunetv2_hlfd.training.fold import parse_fold
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.orphans import end_forks_with_this_process

if TYPE_CHECKING:
    from nnunetv2_hlfd.training.scheduled_trainer import ScheduledTrainer


def train(arguments: Sequence[str], *, dry_run: bool, overwrite: bool) -> None:
    """Run nnU-Net's own nnUNetv2_train with these arguments; nnU-Net sets the thread count.

    Args:
        arguments: those of nnUNetv2_train.
        dry_run: make all checks, print the tap table, sizes and seconds per step, and stop.
        overwrite: replace an earlier run of this fold that had other settings, once the new one has a checkpoint.

    Raises:
        UserError: for a data set, fold, device or weights that are not there, and what the trainer refuses.
    """
    from nnunetv2.run.run_training import run_training_entry

    extend_trainer_search()
    end_forks_with_this_process()
    options = _parse(arguments)
    find_dataset(options.dataset)
    parse_fold(options.fold)
    choose_device(options.device)
    with _overwriting() if overwrite else contextlib.nullcontext(), _pretrained(options.pretrained_weights):
        if dry_run:
            _dry_run(options)
        else:
            sys.argv = ["nnUNetv2_train", *arguments]
            run_training_entry()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments of nnUNetv2_train that say which run it is."""
    parser = argparse.ArgumentParser(prog="nnUNetv2_hlfd train", add_help=False)
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("fold")
    parser.add_argument("-tr", default="nnUNetTrainer")
    parser.add_argument("-p", default="nnUNetPlans")
    parser.add_argument("-device", default="cuda")
    parser.add_argument("-pretrained_weights")
    parser.add_argument("-num_gpus")
    return parser.parse_known_args(arguments)[0]


@contextlib.contextmanager
def _overwriting() -> Iterator[None]:
    """Tell the trainer, and those of the processes that nnU-Net starts for several GPUs."""
    os.environ[OVERWRITE_VARIABLE] = "1"
    try:
        yield
    finally:
        del os.environ[OVERWRITE_VARIABLE]


@contextlib.contextmanager
def _pretrained(file: str | None) -> Iterator[None]:
    """Weights to start from: read once without running code from them, which nnU-Net would; a misfit in short words.

    Raises:
        UserError: for a missing, damaged or foreign file, or weights of another network.
    """
    hint = ""
    if file is not None:
        hint = wrapper_hint(read_checkpoint(Path(file), required=("network_weights",))["network_weights"])
    try:
        yield
    except AssertionError as error:  # nnU-Net's, with a whole tensor in it
        misfit = re.search(r"key (\S+) is", str(error), re.IGNORECASE)
        if file is None or misfit is None:
            raise
        raise UserError(
            f"The weights in {file} are of another network, the first that does not fit is {misfit[1]}. "
            f"-pretrained_weights takes the checkpoint of the same network, as of a student with the same setting "
            f"student and plans. A teacher is named by the environment variable nnUNet_hlfd_teacher.{hint}"
        ) from error


def _dry_run(options: argparse.Namespace) -> None:
    from nnunetv2.run.run_training import maybe_load_checkpoint

    from nnunetv2_hlfd.training.throwaway import throwaway_trainer

    with throwaway_trainer(
        options.dataset, options.configuration, options.fold, options.tr, options.p, options.device
    ) as trainer:
        trainer.check_start()
        maybe_load_checkpoint(trainer, False, False, options.pretrained_weights)
        seconds = _seconds_per_step(trainer)
    steps = trainer.num_epochs * trainer.num_iterations_per_epoch
    print(
        f"{seconds:.3g} s per training step (batch {trainer.batch_size}, {options.device}); {steps} steps: about "
        f"{seconds * steps / 3600:.2g} h, validation apart. Dry run: nothing was trained or written."
    )


def _seconds_per_step(trainer: "ScheduledTrainer", repeats: int = 3) -> float:
    """Time of a step on real batches, augmentation apart."""
    from nnunetv2_hlfd.training.throwaway import real_batches
    from nnunetv2_hlfd.utilities.timing import seconds_of_each

    batches = iter(real_batches(trainer, repeats + 1))
    trainer.network.train()
    return float(seconds_of_each(lambda: trainer.train_step(next(batches)), repeats, trainer.device).mean())
