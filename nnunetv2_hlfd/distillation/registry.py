"""Distillation methods, one file each.

A method's name is that of its trainer without `nnUNetTrainer`. Other packages register theirs through the entry-point
group `nnunetv2_hlfd.methods`, in the same form: `NAME = "package.module:nnUNetTrainerNAME"`.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from nnunetv2_hlfd.settings.rules import nearest
from nnunetv2_hlfd.utilities.errors import UserError

PREFIX = "nnUNetTrainer"
GROUP = "nnunetv2_hlfd.methods"

METHODS = {
    "HLFD": "nnunetv2_hlfd.methods.hlfd:nnUNetTrainerHLFD",
    "HLFD_noFeature": "nnunetv2_hlfd.methods.hlfd:nnUNetTrainerHLFD_noFeature",
    "HLFD_noPixel": "nnunetv2_hlfd.methods.hlfd:nnUNetTrainerHLFD_noPixel",
    "HLFD_pixelTruth": "nnunetv2_hlfd.methods.pixel_truth:nnUNetTrainerHLFD_pixelTruth",
    "KD": "nnunetv2_hlfd.methods.kd:nnUNetTrainerKD",
    "AT": "nnunetv2_hlfd.methods.at:nnUNetTrainerAT",
    "FitNet": "nnunetv2_hlfd.methods.fitnet:nnUNetTrainerFitNet",
    "CWD": "nnunetv2_hlfd.methods.cwd:nnUNetTrainerCWD",
    "SKD": "nnunetv2_hlfd.methods.skd:nnUNetTrainerSKD",
    "EMKD": "nnunetv2_hlfd.methods.emkd:nnUNetTrainerEMKD",
    "EMKD_region": "nnunetv2_hlfd.methods.emkd:nnUNetTrainerEMKD_region",
    "IMF": "nnunetv2_hlfd.methods.imf:nnUNetTrainerIMF",
    "DSKD": "nnunetv2_hlfd.methods.dskd:nnUNetTrainerDSKD",
}


def find_trainer(name: str) -> Any:
    """Import the trainer of a method; entry points are read only for names that METHODS lacks.

    Args:
        name: of the method, such as HLFD.

    Raises:
        UserError: for an unknown name (naming the nearest), one that several packages register, or an entry point
            that leads to something else than a trainer of that name.
    """
    if name in METHODS:
        return EntryPoint(name, METHODS[name], GROUP).load()
    registered = list(entry_points(group=GROUP, name=name))
    if len({each.value for each in registered}) > 1:
        places = ", ".join(each.value for each in registered)
        raise UserError(f"Expected one method '{name}', several packages register it: {places}. Uninstall one of them.")
    if not registered:
        raise UserError(f"Unknown method '{name}'.{nearest(name, method_names())}")
    trainer = registered[0].load()
    if getattr(trainer, "__name__", None) != f"{PREFIX}{name}" or not hasattr(trainer, "method_class"):
        raise UserError(
            f"Expected the entry point '{name}' ({registered[0].value}) to be a DistillationTrainer with the name "
            f"{PREFIX}{name}, got {trainer!r}."
        )
    return trainer


def method_names() -> list[str]:
    """Names of all methods, those of other packages last."""
    return list(dict.fromkeys([*METHODS, *(each.name for each in entry_points(group=GROUP))]))
