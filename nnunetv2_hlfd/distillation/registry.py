"""Distillation methods by name; each is one file of `methods/`.

A method's name is that of its trainer without `nnUNetTrainer`. Other packages register theirs through the entry-point
group `nnunetv2_hlfd.methods`, in the same form: `NAME = "package.module:Method"`.
"""

import warnings
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from nnunetv2_hlfd.distillation.method import DistillationMethod
from nnunetv2_hlfd.settings.rules import nearest
from nnunetv2_hlfd.utilities.errors import UserError

PREFIX = "nnUNetTrainer"
GROUP = "nnunetv2_hlfd.methods"

METHODS = {
    "HLFD": "nnunetv2_hlfd.methods.hlfd:HLFD",
    "HLFD_balanced": "nnunetv2_hlfd.methods.hlfd_balanced:HLFDBalanced",
    "HLFD_noFeature": "nnunetv2_hlfd.methods.hlfd:HLFDNoFeature",
    "HLFD_noPixel": "nnunetv2_hlfd.methods.hlfd:HLFDNoPixel",
    "HLFD_pixelTruth": "nnunetv2_hlfd.methods.pixel_truth:PixelTruth",
    "SoftLabel": "nnunetv2_hlfd.methods.soft_label:SoftLabel",
    "KD": "nnunetv2_hlfd.methods.kd:KD",
    "AT": "nnunetv2_hlfd.methods.at:AT",
    "FitNet": "nnunetv2_hlfd.methods.fitnet:FitNet",
    "CWD": "nnunetv2_hlfd.methods.cwd:CWD",
    "SKD": "nnunetv2_hlfd.methods.skd:SKD",
    "EMKD": "nnunetv2_hlfd.methods.emkd:EMKD",
    "EMKD_region": "nnunetv2_hlfd.methods.emkd:EMKDRegion",
    "IMF": "nnunetv2_hlfd.methods.imf:IMF",
    "DSKD": "nnunetv2_hlfd.methods.dskd:DSKD",
}


def find_method(name: str) -> type[DistillationMethod]:
    """Import the class of a method.

    Args:
        name: of the method, such as HLFD.

    Raises:
        UserError: for an unknown name (naming the nearest), one that several packages register, or an entry point
            that does not lead to a method.
    """
    registered = load_registered(name)
    if isinstance(registered, type) and issubclass(registered, DistillationMethod):
        return registered
    return registered.method_class


def load_registered(name: str) -> Any:
    """What a name stands for: a method class, or (the form before 0.2) the trainer that has one as `method_class`.

    Entry points are read only for names that METHODS lacks.

    Raises:
        UserError: see `find_method`.
    """
    if name in METHODS:
        return EntryPoint(name, METHODS[name], GROUP).load()
    entries = list(entry_points(group=GROUP, name=name))
    if len({entry.value for entry in entries}) > 1:
        places = ", ".join(entry.value for entry in entries)
        raise UserError(f"Expected one method '{name}', several packages register it: {places}. Uninstall one of them.")
    if not entries:
        raise UserError(f"Unknown method '{name}'.{nearest(name, method_names())}")
    registered = entries[0].load()
    if isinstance(registered, type) and issubclass(registered, DistillationMethod):
        return registered
    if getattr(registered, "__name__", None) != f"{PREFIX}{name}" or not hasattr(registered, "method_class"):
        raise UserError(
            f"Expected the entry point '{name}' ({entries[0].value}) to be a DistillationMethod, got {registered!r}."
        )
    warnings.warn(
        f"The entry point '{name}' ({entries[0].value}) names a trainer. Name the method's class itself: its trainer "
        f"{PREFIX}{name} is made from it.",
        DeprecationWarning,
        stacklevel=2,
    )
    return registered


def method_names() -> list[str]:
    """Names of all methods, those of other packages last."""
    return list(dict.fromkeys([*METHODS, *(entry.name for entry in entry_points(group=GROUP))]))
