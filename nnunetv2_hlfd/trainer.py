"""Where `DistillationTrainer` was before 0.2, for methods of other packages."""

import warnings

from nnunetv2_hlfd.training.distillation_trainer import DistillationTrainer

__all__ = ["DistillationTrainer"]

warnings.warn(
    "nnunetv2_hlfd.trainer has moved: from nnunetv2_hlfd import DistillationTrainer", DeprecationWarning, stacklevel=2
)
