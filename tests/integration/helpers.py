"""Trainers without nnU-Net's final validation, and what their checkpoints hold."""

from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name


def make_trainer(
    nnunet: Path, trainer: str, plans: str, *, dataset: str = "Dataset901_Phantom", configuration: str = "2d",
    fold: Any = 0, continue_training: bool = False, trainer_class: Any = None,
) -> Any:  # fmt: skip
    """A trainer as nnU-Net's `get_trainer_from_args` makes it; `trainer_class` is a test's own subclass of it."""
    folder = nnunet / "preprocessed" / dataset
    content = {**load_json(str(folder / f"{plans}.json")), "continue_training": continue_training}
    trainer_class = trainer_class or recursive_find_trainer_class_by_name(trainer)
    return trainer_class(content, configuration, fold, load_json(str(folder / "dataset.json")), torch.device("cpu"))


def load(path: Path) -> dict[str, Any]:
    """A checkpoint of ours; it must load without running code."""
    from nnunetv2_hlfd.checkpoints import read_checkpoint

    return read_checkpoint(path)


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
