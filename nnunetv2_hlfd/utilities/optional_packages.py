"""Packages that only some commands need."""

from importlib import import_module
from typing import Any

from nnunetv2_hlfd.utilities.errors import UserError


def needed(package: str, extra: str) -> Any:
    """Import a package of an extra.

    Raises:
        UserError: with the command that installs it.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise UserError(f"This needs {package.split('.')[0]}: pip install 'nnunetv2-hlfd[{extra}]'") from error
