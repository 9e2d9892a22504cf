"""Reading the JSON files of nnU-Net and of this package, and one message for whatever is wrong inside a file."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_shape import Shape, check_shape

Record = TypeVar("Record")
_DEEPEST = 50  # levels
_MOST_DIGITS = 18  # of an integer


def read_json(path: Path, shape: Shape = Mapping) -> Any:
    """Read a file.

    Args:
        path: of the file.
        shape: that its content has to have (`check_shape`); any object by default.

    Raises:
        UserError: naming a damaged file.
        FileNotFoundError: where there is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_int=_read_integer)
        _check_depth(content)
        check_shape(content, shape)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return content


def _read_integer(digits: str) -> int:
    """What is longer overflows where it is counted with, and cannot even be shown."""
    if len(digits) > _MOST_DIGITS:
        raise UserError(f"an integer of {len(digits)} digits")
    return int(digits)


def _check_depth(content: Any) -> None:
    """Refuse what is nested so deep that code which walks through it would end in a RecursionError."""
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise UserError(f"more than {_DEEPEST} levels, one inside the other")
        containers = [value for value in level if isinstance(value, dict | list)]
        level = [part for value in containers for part in (value.values() if isinstance(value, dict) else value)]


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
