"""The trainers of the distillation methods: `nnUNetTrainerNAME` for every NAME of the registry.

A trainer is a name and a method, so it is made from them; a method brings no trainer of its own.
"""

from functools import cache
from typing import Any

from nnunetv2_hlfd.distillation.method import DistillationMethod
from nnunetv2_hlfd.distillation.registry import PREFIX, load_registered, method_names
from nnunetv2_hlfd.training.distillation_trainer import DistillationTrainer


def find_trainer(name: str) -> type[DistillationTrainer]:
    """The trainer of a method.

    Args:
        name: of the method, such as HLFD.

    Raises:
        UserError: as `find_method` of the registry.
    """
    registered = load_registered(name)
    if not issubclass(registered, DistillationMethod):
        return registered  # the form before 0.2: an entry point that names a trainer
    return _make_trainer(name, registered)


@cache
def _make_trainer(name: str, method: type[DistillationMethod]) -> type[DistillationTrainer]:
    content = {"method_class": method, "__doc__": f"Student distilled by {method.title}.", "__module__": __name__}
    return type(f"{PREFIX}{name}", (DistillationTrainer,), content)


def __getattr__(name: str) -> Any:
    """The trainer of this name: nnU-Net asks the modules of nnUNet_extTrainer for trainers by their names."""
    method = name.removeprefix(PREFIX)
    if method == name or method not in method_names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return find_trainer(method)
