"""Trainers without nnU-Net's final validation, what their checkpoints hold, and nnU-Net's commands."""

import csv
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from processes import run, run_script, run_without_this_package


def make_trainer(
    nnunet: Path,
    trainer: str,
    plans: str,
    *,
    dataset: str = "Dataset901_Phantom",
    configuration: str = "2d",
    fold: Any = 0,
    continue_training: bool = False,
    trainer_class: Any = None,
) -> Any:
    """A trainer as nnU-Net's `get_trainer_from_args` makes it; `trainer_class` is a test's own subclass of it."""
    folder = nnunet / "preprocessed" / dataset
    content = {**load_json(str(folder / f"{plans}.json")), "continue_training": continue_training}
    trainer_class = trainer_class or find_trainer(trainer)
    return trainer_class(content, configuration, fold, load_json(str(folder / "dataset.json")), torch.device("cpu"))


@cache
def find_trainer(name: str) -> Any:
    """nnU-Net's search, which imports every trainer there is, once for each name."""
    return recursive_find_trainer_class_by_name(name)


def started(trainer: Any) -> Any:
    """The trainer, ready for its first step."""
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    return trainer


def run_epoch(trainer: Any) -> None:
    """One epoch as nnU-Net's `run_training` makes it, after `on_train_start`."""
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    steps = range(trainer.num_iterations_per_epoch)
    trainer.on_train_epoch_end([trainer.train_step(next(trainer.dataloader_train)) for _ in steps])
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        steps = range(trainer.num_val_iterations_per_epoch)
        trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val)) for _ in steps])
    trainer.on_epoch_end()


def train_once(
    nnunet: Path,
    train: Callable[..., Path],
    trainer: str,
    *,
    dataset: str = "Dataset901_Phantom",
    plans: str,
    configuration: str = "2d",
    fold: int | str = 0,
) -> Path:
    """Fold folder of a trained and validated model, made by the first test that asks for it."""
    folder = nnunet / "results" / dataset / f"{trainer}__{plans}__{configuration}" / f"fold_{fold}"
    if not (folder / "validation/summary.json").is_file():
        train(trainer, dataset=dataset, plans=plans, configuration=configuration, fold=fold)
    return folder


def report_students(nnunet: Path, train: Callable[..., Path], variant: Callable[..., str]) -> list[Path]:
    """Model folders of two students alone that differ in the seed and one with HLFD, for reports."""
    plans = [variant(f"report.s{seed}", base="nnUNetPlans_short", seed=seed) for seed in (1, 2)]
    runs = [("nnUNetTrainerStudent", plans[0]), ("nnUNetTrainerStudent", plans[1]), ("nnUNetTrainerHLFD", plans[0])]
    return [train_once(nnunet, train, trainer, plans=each).parent for trainer, each in runs]


def command(name: str, *arguments: object, **environment: str) -> str:
    """Run a console script that pip has installed beside this Python; returns its output."""
    script = Path(sys.executable).parent / name
    return run(run_script, (script, [str(argument) for argument in arguments]), {**os.environ, **environment})


def stock(entry_point: str, *arguments: object, **environment: str) -> str:
    """An nnU-Net command in a process that can import neither this package nor has nnUNet_extTrainer.

    Args:
        entry_point: `module:function` of nnU-Net's console script.
        arguments: of the command.
        environment: other variables.
    """
    variables = {key: value for key, value in os.environ.items() if key not in ("nnUNet_extTrainer", "PYTHONPATH")}
    call = (entry_point, [str(argument) for argument in arguments])
    elsewhere = variables["nnUNet_results"]  # not in a checkout of this package
    return run(run_without_this_package, call, {**variables, **environment}, elsewhere)


PREDICT = "nnunetv2.inference.predict_from_raw_data:predict_entry_point"


def prediction(model: Path, images: Path, output: Path, *, folds: Sequence[int | str] = (0,)) -> list[object]:
    """Arguments of nnUNetv2_predict for a model folder below one of its data set; in one process."""
    trainer, plans, configuration = model.name.split("__")
    names = ["-d", model.parent.name, "-c", configuration, "-tr", trainer, "-p", plans, "-f", *folds]
    return [*names, "-i", images, "-o", output, "-device", "cpu", "-npp", 0, "-nps", 0]


def load(path: Path) -> dict[str, Any]:
    """A checkpoint of ours; it must load without running code."""
    from nnunetv2_hlfd.models.checkpoints import read_checkpoint

    return read_checkpoint(path)


def table(file: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def assert_same(left: Any, right: Any) -> None:
    """Equality bit for bit of nested tensors."""
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    else:
        assert left == right
