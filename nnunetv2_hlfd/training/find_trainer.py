"""Trainers by name: this package's, nnU-Net's, and those of other packages in nnUNet_extTrainer."""

import contextlib
import io
from typing import Any

from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_hlfd.distillation.registry import PREFIX, find_method, method_names
from nnunetv2_hlfd.settings.rules import nearest
from nnunetv2_hlfd.utilities.errors import UserError

WITHOUT_METHOD = {
    f"{PREFIX}Teacher": "a teacher: the plans' network, with this package's schedule",
    f"{PREFIX}UNetPlusPlus": "a teacher: UNet++ with the plans' stages and widths, as in the HLFD paper",
    f"{PREFIX}Student": "the student alone, with which every distilled student is compared",
}


def describe_trainers() -> dict[str, str]:
    """Name -> one line, of every trainer of this package and of packages that register methods."""
    methods = {name: find_method(name) for name in method_names()}
    return WITHOUT_METHOD | {f"{PREFIX}{name}": method.summary or method.title for name, method in methods.items()}


def find_any_trainer(name: str) -> Any:
    """Import a trainer as nnU-Net finds it; nnUNet_extTrainer holds this package's.

    Raises:
        UserError: for a name that no trainer has, with the nearest one.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net tells every step of its search
            return recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        names = [*WITHOUT_METHOD, *(f"{PREFIX}{method}" for method in method_names()), PREFIX]
        meant = name if name.lower().startswith(PREFIX.lower()) else f"{PREFIX}{name}"
        raise UserError(
            f"No trainer is called '{name}'.{nearest(meant, names)} nnUNetv2_hlfd trainers says what each does; "
            f"others are looked for in the folders of nnUNet_extTrainer."
        ) from error
    except AssertionError as error:  # nnU-Net's
        raise UserError(f"Expected a trainer of nnU-Net, got {name}: {error}") from error
