"""Data sets that come with the package."""

from nnunetv2_hlfd.datasets.phantom import LabelMode, simulate_case, write_phantom_dataset

__all__ = ["LabelMode", "simulate_case", "write_phantom_dataset"]
