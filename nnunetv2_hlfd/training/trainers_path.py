"""Where nnU-Net finds the trainers of this package."""

import os
from pathlib import Path

from nnunetv2_hlfd.utilities.errors import UserError


def trainers_path() -> Path:
    """The folder for nnUNet_extTrainer, beside the package: `trainers` in a checkout, its copy when installed."""
    beside = Path(__file__).resolve().parents[2]
    for folder in (beside / "trainers", beside / "nnunetv2_hlfd_extTrainer"):
        if (folder / "nnunetv2_hlfd_trainers.py").is_file():
            return folder
    raise UserError(f"Expected the folder of the trainers in {beside}, found none. Install nnunetv2_hlfd again.")


def extend_trainer_search() -> None:
    """Put the trainers folder into nnUNet_extTrainer, keeping what is there."""
    folder = str(trainers_path())
    paths = [path for path in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if path]
    if folder not in paths:
        os.environ["nnUNet_extTrainer"] = os.pathsep.join([*paths, folder])
