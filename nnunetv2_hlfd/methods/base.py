"""Where `DistillationMethod` was before 0.2, for methods of other packages."""

import warnings

from nnunetv2_hlfd.distillation.method import DistillationMethod, Roles, Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs, mean_map

__all__ = ["DistillationMethod", "Outputs", "Roles", "Task", "TeacherOutputs", "TeacherShape", "mean_map"]

warnings.warn(
    "nnunetv2_hlfd.methods.base has moved: from nnunetv2_hlfd import DistillationMethod",
    DeprecationWarning,
    stacklevel=2,
)
