"""Trainers of nnunetv2_hlfd for nnU-Net: let the environment variable nnUNet_extTrainer point at this folder."""

from nnunetv2_hlfd.training.method_trainers import __getattr__
from nnunetv2_hlfd.training.scheduled_trainer import nnUNetTrainerTeacher
from nnunetv2_hlfd.training.student_trainer import nnUNetTrainerStudent
from nnunetv2_hlfd.training.unet_plus_plus_trainer import nnUNetTrainerUNetPlusPlus

__all__ = ["__getattr__", "nnUNetTrainerStudent", "nnUNetTrainerTeacher", "nnUNetTrainerUNetPlusPlus"]
