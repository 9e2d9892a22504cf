"""Where nnU-Net keeps its data sets, and which of them a name or ID on the command line means."""

import os
from pathlib import Path

from nnunetv2 import paths
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunetv2_hlfd.utilities.errors import UserError


def raw_folder() -> Path:
    """Return the folder that nnUNet_raw names.

    Raises:
        UserError: where it is not set.
    """
    return _folder(paths.nnUNet_raw)


def preprocessed_folder() -> Path:
    """Return the folder that nnUNet_preprocessed names.

    Raises:
        UserError: where it is not set.
    """
    return _folder(paths.nnUNet_preprocessed)


def results_folder() -> Path:
    """Return the folder that nnUNet_results names.

    Raises:
        UserError: where it is not set.
    """
    return _folder(paths.nnUNet_results)


def find_dataset(name_or_id: str) -> str:
    """Return the name `DatasetXXX_Name`; that of an ID is looked up in nnU-Net's three folders.

    Raises:
        UserError: for an ID that no data set or several have, or what is neither a name nor an ID.
    """
    try:
        return str(maybe_convert_to_dataset_name(name_or_id))
    except (RuntimeError, ValueError) as error:
        words = " ".join(str(error).split())
        raise UserError(f"Expected the name or ID of a data set, got '{name_or_id}'. nnU-Net says: {words}") from error


def _folder(variable: "os.PathLike[str]") -> Path:
    try:
        return Path(variable)
    except RuntimeError as error:  # nnU-Net's message says which variable is missing
        raise UserError(str(error)) from error
