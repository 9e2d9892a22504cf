"""`nnUNetv2_hlfd train`: nnU-Net's own training with this package's trainers in reach, and its dry run."""

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nnunetv2_hlfd.models.checkpoints import read_checkpoint
from nnunetv2_hlfd.plans.identity import RECORD_FILE

if TYPE_CHECKING:
    from nnunetv2_hlfd.training.scheduled_trainer import ScheduledTrainer


def trainers_path() -> Path:
    """The folder for nnUNet_extTrainer, beside the package: `trainers` in a checkout, its copy when installed."""
    beside = Path(__file__).resolve().parent.parent
    for folder in (beside / "trainers", beside / "nnunetv2_hlfd_extTrainer"):
        if (folder / "nnunetv2_hlfd_trainers.py").is_file():
            return folder
    raise ValueError(f"Expected the folder of the trainers in {beside}, found none. Install nnunetv2_hlfd again.")


def extend_trainer_search() -> None:
    """Put the trainers folder into nnUNet_extTrainer, keeping what is there."""
    ours = str(trainers_path())
    paths = [each for each in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if each]
    if ours not in paths:
        os.environ["nnUNet_extTrainer"] = os.pathsep.join([*paths, ours])


def continuation(fold_folder: Path) -> list[str]:
    """What nnUNetv2_train has to be told to go on with a fold: --val, --c, or nothing for a new start."""
    if (fold_folder / "checkpoint_final.pth").is_file():
        return ["--val"]
    if any((fold_folder / f"checkpoint_{each}.pth").is_file() for each in ("latest", "best")):
        return ["--c"]
    return []


def train(arguments: Sequence[str], *, dry_run: bool, overwrite: bool) -> None:
    """Run nnU-Net's own nnUNetv2_train with these arguments; nnU-Net sets the thread count.

    Args:
        arguments: those of nnUNetv2_train.
        dry_run: make all checks, print the tap table, sizes and seconds per step, and stop.
        overwrite: forget which settings an earlier run of this fold had, so that it is replaced.
    """
    from nnunetv2.run.run_training import run_training_entry

    extend_trainer_search()
    options = _parse(arguments)
    with _set_aside(options) if overwrite else contextlib.nullcontext(), _pretrained(options.pretrained_weights):
        if dry_run:
            return _dry_run(options)
        sys.argv = ["nnUNetv2_train", *arguments]
        run_training_entry()
    return None


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
def _set_aside(options: argparse.Namespace) -> Iterator[None]:
    """Hide which settings an earlier run of this fold had; a run that never starts gets them back."""
    from nnunetv2.utilities.file_path_utilities import get_output_folder

    model_folder = Path(get_output_folder(options.dataset, options.tr, options.p, options.configuration))
    records = [model_folder / "plans.json", model_folder / f"fold_{options.fold}" / RECORD_FILE]
    hidden = {each: each.with_name(f"{each.name}.replaced") for each in records if each.is_file()}
    for record, aside in hidden.items():
        record.replace(aside)
    try:
        yield
    finally:
        for record, aside in hidden.items():
            if record.is_file():
                aside.unlink()
            else:
                aside.replace(record)


@contextlib.contextmanager
def _pretrained(file: str | None) -> Iterator[None]:
    """Weights to start from: read once without running code from them, which nnU-Net would; a misfit in short words.

    Raises:
        ValueError: for a missing, damaged or foreign file, or weights of another network.
    """
    if file is not None:
        read_checkpoint(Path(file), required=("network_weights",))
    try:
        yield
    except AssertionError as error:  # nnU-Net's, with a whole tensor in it
        misfit = re.search(r"key (\S+) is", str(error), re.IGNORECASE)
        if file is None or misfit is None:
            raise
        raise ValueError(
            f"The weights in {file} are of another network, the first that does not fit is {misfit[1]}. "
            f"-pretrained_weights takes the checkpoint of the same network, as of a student with the same setting "
            f"student and plans. A teacher is named by the environment variable nnUNet_hlfd_teacher."
        ) from error


def _dry_run(options: argparse.Namespace) -> None:
    from nnunetv2.run.run_training import maybe_load_checkpoint

    with throwaway_trainer(options.dataset, options.configuration, options.fold, options.tr, options.p,
                           options.device) as trainer:  # fmt: skip
        trainer.check_start()
        maybe_load_checkpoint(trainer, False, False, options.pretrained_weights)
        seconds = _seconds_per_step(trainer)
    steps = trainer.num_epochs * trainer.num_iterations_per_epoch
    print(f"{seconds:.3g} s per training step (batch {trainer.batch_size}, {options.device}); {steps} steps: about "
          f"{seconds * steps / 3600:.2g} h, validation apart. Dry run: nothing was trained or written.")  # fmt: skip


@contextlib.contextmanager
def throwaway_trainer(
    dataset: str, configuration: str, fold: str, name: str, plans: str, device_name: str
) -> Iterator["ScheduledTrainer"]:
    """A trainer of this package as nnUNetv2_train builds it, which leaves neither folder nor log behind.

    Raises:
        ValueError: for what nnU-Net does not find, a device that is not there, or another package's trainer.
    """
    from nnunetv2.run.run_training import get_trainer_from_args

    from nnunetv2_hlfd.training.scheduled_trainer import ScheduledTrainer

    device = torch.device(device_name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("This machine has no GPU that torch can use. Add -device cpu.")
    if not fold.isdigit() and fold != "all":
        raise ValueError(f"Expected a fold number or 'all', got '{fold}'.")
    if device.type == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)
    number = fold if fold == "all" else int(fold)
    try:
        with _without_wandb():
            trainer = get_trainer_from_args(dataset, configuration, number, name, plans, device=device)
    except (RuntimeError, FileNotFoundError) as error:  # nnU-Net's words for a data set, trainer or file it lacks
        raise ValueError(str(error)) from error
    try:
        if not isinstance(trainer, ScheduledTrainer):
            raise ValueError(f"Expected a trainer of this package, such as -tr nnUNetTrainerHLFD, got {name}.")
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


def _seconds_per_step(trainer: "ScheduledTrainer", repeats: int = 3) -> float:
    """Time of a step on real batches, augmentation apart."""
    batches = real_batches(trainer, repeats + 1)
    trainer.network.train()
    trainer.train_step(batches[0])
    start = time.perf_counter()
    for batch in batches[1:]:
        trainer.train_step(batch)
    return (time.perf_counter() - start) / repeats


def real_batches(trainer: "ScheduledTrainer", number: int) -> list[dict[str, Any]]:
    """Augmented training batches of a trainer."""
    loaders = trainer.get_dataloaders()
    batches = [next(loaders[0]) for _ in range(number)]
    for each in loaders:
        if hasattr(each, "_finish"):
            each._finish()
    return batches


def _remove_traces(log_file: Path) -> None:
    """nnU-Net's constructor makes the fold's folder and a log; leave neither behind."""
    log_file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a folder that holds something else stays
        for folder in (log_file.parent, log_file.parent.parent, log_file.parent.parent.parent):
            folder.rmdir()
