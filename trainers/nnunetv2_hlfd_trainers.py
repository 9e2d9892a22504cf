"""Trainers of nnunetv2_hlfd for nnU-Net: let the environment variable nnUNet_extTrainer point at this folder."""

from nnunetv2_hlfd.methods.hlfd import nnUNetTrainerHLFD, nnUNetTrainerHLFD_noFeature, nnUNetTrainerHLFD_noPixel
from nnunetv2_hlfd.scheduled_trainer import nnUNetTrainerTeacher
from nnunetv2_hlfd.student_trainer import nnUNetTrainerStudent

__all__ = [
    "nnUNetTrainerHLFD",
    "nnUNetTrainerHLFD_noFeature",
    "nnUNetTrainerHLFD_noPixel",
    "nnUNetTrainerStudent",
    "nnUNetTrainerTeacher",
]
