"""`nnUNetv2_hlfd train`: nnU-Net's own training with this package's trainers in reach, and its dry run."""

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nnunetv2_hlfd.datasets.locations import results_folder
from nnunetv2_hlfd.models.checkpoints import check_finite_weights, read_checkpoint, wrapper_hint
from nnunetv2_hlfd.models.fold import FINAL
from nnunetv2_hlfd.settings.settings import OVERWRITE_VARIABLE
from nnunetv2_hlfd.training.cost import checkpoint_bytes, in_words, memory_in_words
from nnunetv2_hlfd.training.start import check_arguments
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.orphans import end_forks_with_this_process

if TYPE_CHECKING:
    from nnunetv2_hlfd.training.scheduled_trainer import ScheduledTrainer


def train(options: argparse.Namespace) -> None:
    """Run nnU-Net's own nnUNetv2_train, or the dry run of it; nnU-Net sets the thread count.

    Args:
        options: nnUNetv2_train's arguments by their names, with `dataset` for the first; `dry_run`, to make all checks,
            print the tap table, sizes and seconds per step, and stop; `overwrite`, to replace an earlier run of this
            fold that had other settings, once the new one has a checkpoint.

    Raises:
        UserError: for what is not there, flags that exclude each other, and what the trainer refuses.
    """
    from nnunetv2.run.run_training import run_training_entry

    extend_trainer_search()
    end_forks_with_this_process()
    _check_flags(options)
    name, *_ = check_arguments(
        options.dataset,
        options.configuration,
        options.fold,
        options.tr,
        options.p,
        options.device,
        continues=options.c or options.val,
    )
    if options.val:
        _check_finished(options, name)
    with _overwriting() if options.overwrite else contextlib.nullcontext(), _pretrained(options.pretrained_weights):
        if options.dry_run:
            _dry_run(options)
        else:
            sys.argv = ["nnUNetv2_train", *_nnunet_arguments(options)]
            run_training_entry()


def _check_flags(options: argparse.Namespace) -> None:
    """Refuse with one message what nnU-Net refuses with an exception, or late."""
    for first, second in (("c", "val"), ("val_best", "disable_checkpointing"), ("c", "pretrained_weights")):
        if getattr(options, first) and getattr(options, second):
            dashes = "-" if second == "pretrained_weights" else "--"
            raise UserError(f"--{first} and {dashes}{second} exclude each other. Leave one of them out.")
    if options.num_gpus > 1:
        available = torch.cuda.device_count() if options.device == "cuda" else 0
        if options.num_gpus > available:
            raise UserError(
                f"-num_gpus {options.num_gpus} needs as many GPUs for -device cuda, found {available} for -device "
                f"{options.device}."
            )


def _check_finished(options: argparse.Namespace, dataset: str) -> None:
    folder = f"{options.tr}__{options.p}__{options.configuration}"
    checkpoint = results_folder() / dataset / folder / f"fold_{options.fold}" / FINAL
    if not checkpoint.is_file():
        raise UserError(f"Expected the finished training {checkpoint} for --val, found none. Go on with it by --c.")


def _nnunet_arguments(options: argparse.Namespace) -> list[str]:
    arguments = [options.dataset, options.configuration, options.fold]
    for name in ("tr", "p", "device", "num_gpus", "pretrained_weights"):
        value = getattr(options, name)
        arguments += [] if value is None else [f"-{name}", str(value)]
    flags = ("npz", "c", "val", "val_best", "disable_checkpointing")
    return arguments + [f"--{flag}" for flag in flags if getattr(options, flag)]


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
        weights = read_checkpoint(Path(file), required=("network_weights",))["network_weights"]
        check_finite_weights(weights, Path(file))
        hint = wrapper_hint(weights)
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
        needs = f"{memory_in_words(trainer.device)}. Disk: about {checkpoint_bytes(trainer.network) / 1e6:.0f} MB"
    steps = trainer.num_epochs * trainer.num_iterations_per_epoch
    print(
        f"{seconds:.3g} s per training step (batch {trainer.batch_size}, {options.device}); {steps} steps: about "
        f"{in_words(seconds * steps)}, augmentation and validation apart. {needs} of checkpoints.\nDry run: nothing "
        f"was trained or written."
    )


def _seconds_per_step(trainer: "ScheduledTrainer", repeats: int = 3) -> float:
    """Time of a step on real batches, augmentation apart."""
    from nnunetv2_hlfd.training.throwaway import real_batches
    from nnunetv2_hlfd.utilities.timing import seconds_of_each

    batches = iter(real_batches(trainer, repeats + 1))
    trainer.network.train()
    return float(seconds_of_each(lambda: trainer.train_step(next(batches)), repeats, trainer.device).mean())
