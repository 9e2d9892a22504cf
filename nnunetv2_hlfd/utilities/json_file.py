"""Reading the JSON files of nnU-Net and of this package, and one message for whatever is wrong inside a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from batchgenerators.utilities.file_and_folder_operations import load_json

from nnunetv2_hlfd.utilities.errors import UserError

Record = TypeVar("Record")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds an object.

    Raises:
        UserError: naming a damaged file.
        FileNotFoundError: where there is none.
    """
    try:
        content = load_json(str(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: expected an object, got {type(content).__name__}.")
    return content


@contextmanager
def refuse_damage(source: object) -> Iterator[None]:
    """Turn whatever nnU-Net or torch raise on the content of a file into one clear error.

    A file from somebody else can hold anything in any place, so the kinds of errors cannot be listed.

    Args:
        source: the file or folder, named in the message.

    Raises:
        UserError: naming the source; errors that are one already, and those of the file system, pass.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        raise UserError(f"{source} is damaged: {type(error).__name__}: {str(error)[:300]}") from error


def read_record(kind: type[Record], path: Path) -> Record:
    """Read a dataclass from the file that its fields were written to.

    Raises:
        UserError: for a damaged file.
        FileNotFoundError: where there is none.
    """
    with refuse_damage(path):
        return kind(**read_json(path))
