"""Distillation of nnU-Net v2 models into small students. The public names are imported when they are asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from nnunetv2_hlfd.compress.command import compress_model
    from nnunetv2_hlfd.compress.options import CompressOptions
    from nnunetv2_hlfd.distillation.method import DistillationMethod, PixelMap, Roles, Task, TeacherShape
    from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
    from nnunetv2_hlfd.distillation.registry import find_method
    from nnunetv2_hlfd.distillation.taps import Stage, read_stages
    from nnunetv2_hlfd.methods.hlfd import HLFD
    from nnunetv2_hlfd.settings.settings import Settings
    from nnunetv2_hlfd.training.distillation_trainer import DistillationTrainer

__all__ = [
    "HLFD",
    "CompressOptions",
    "DistillationMethod",
    "DistillationTrainer",
    "Outputs",
    "PixelMap",
    "Roles",
    "Settings",
    "Stage",
    "Task",
    "TeacherOutputs",
    "TeacherShape",
    "compress_model",
    "find_method",
    "read_stages",
]

_HOMES = {
    "HLFD": "methods.hlfd",
    "CompressOptions": "compress.options",
    "DistillationMethod": "distillation.method",
    "DistillationTrainer": "training.distillation_trainer",
    "Outputs": "distillation.outputs",
    "PixelMap": "distillation.method",
    "Roles": "distillation.method",
    "Settings": "settings.settings",
    "Stage": "distillation.taps",
    "Task": "distillation.method",
    "TeacherOutputs": "distillation.outputs",
    "TeacherShape": "distillation.method",
    "compress_model": "compress.command",
    "find_method": "distillation.registry",
    "read_stages": "distillation.taps",
}


def __getattr__(name: str) -> Any:
    """Import a public name: `import nnunetv2_hlfd` itself must stay light, the command line starts with it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
