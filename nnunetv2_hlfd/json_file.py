"""Reading the JSON files of nnU-Net and of this package."""

from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import load_json


def read_json(path: Path) -> dict[str, Any]:
    """Read an object.

    Raises:
        ValueError: naming a damaged file.
        FileNotFoundError: where there is none.
    """
    try:
        content = load_json(str(path))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: expected an object, got {type(content).__name__}.")
    return content
