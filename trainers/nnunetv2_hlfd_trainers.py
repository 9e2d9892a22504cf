"""Trainers of nnunetv2_hlfd for nnU-Net: let the environment variable nnUNet_extTrainer point at this folder."""

from typing import Any

from nnunetv2_hlfd.distillation.registry import PREFIX, find_trainer, method_names
from nnunetv2_hlfd.training.scheduled_trainer import nnUNetTrainerTeacher
from nnunetv2_hlfd.training.student_trainer import nnUNetTrainerStudent
from nnunetv2_hlfd.training.unet_plus_plus_trainer import nnUNetTrainerUNetPlusPlus

__all__ = ["nnUNetTrainerStudent", "nnUNetTrainerTeacher", "nnUNetTrainerUNetPlusPlus"]


def __getattr__(name: str) -> Any:
    """The trainer of a method: nnU-Net asks every module of this folder for the trainer's name."""
    method = name.removeprefix(PREFIX)
    if method == name or method not in method_names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return find_trainer(method)
