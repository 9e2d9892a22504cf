"""Distillation methods, one file each.

A method's name is that of its trainer without `nnUNetTrainer`. Other packages register theirs through the entry-point
group `nnunetv2_hlfd.methods`, in the same form: `NAME = "package.module:nnUNetTrainerNAME"`.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from nnunetv2_hlfd.config import nearest

PREFIX = "nnUNetTrainer"
GROUP = "nnunetv2_hlfd.methods"

METHODS = {
    "HLFD": "nnunetv2_hlfd.methods.hlfd:nnUNetTrainerHLFD",
    "HLFD_noFeature": "nnunetv2_hlfd.methods.hlfd:nnUNetTrainerHLFD_noFeature",
    "HLFD_noPixel": "nnunetv2_hlfd.methods.hlfd:nnUNetTrainerHLFD_noPixel",
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
        ValueError: for an unknown name (naming the nearest) or one that several packages register.
    """
    if name in METHODS:
        return EntryPoint(name, METHODS[name], GROUP).load()
    registered = list(entry_points(group=GROUP, name=name))
    if len({each.value for each in registered}) > 1:
        places = ", ".join(each.value for each in registered)
        raise ValueError(
            f"Expected one method '{name}', several packages register it: {places}. Uninstall one of them."
        )
    if not registered:
        raise ValueError(f"Unknown method '{name}'.{nearest(name, method_names())}")
    return registered[0].load()


def method_names() -> list[str]:
    """Names of all methods, those of other packages last."""
    return list(dict.fromkeys([*METHODS, *(each.name for each in entry_points(group=GROUP))]))
