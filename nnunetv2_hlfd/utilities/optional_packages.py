"""Packages that only some commands need."""

from importlib import import_module
from typing import Any


def needed(package: str, extra: str) -> Any:
    """Import a package of an extra.

    Raises:
        ValueError: with the command that installs it.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ValueError(f"This needs {package.split('.')[0]}: pip install 'nnunetv2-hlfd[{extra}]'") from error
