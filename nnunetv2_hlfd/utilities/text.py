"""Words for messages, and names in recorded paths."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any


def some_names(cases: Iterable[str]) -> str:
    """List a few of the names, and how many more there are."""
    names = sorted(cases)
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}" if names else "none"


def file_name(recorded: str) -> str:
    r"""Return the last part of a path that Windows or another system has recorded.

    >>> file_name(r"D:\\results\\fold_0\\validation\\case.1.nii.gz"), file_name("/results/case.1.nii.gz")
    ('case.1.nii.gz', 'case.1.nii.gz')
    """
    return re.split(r"[/\\]", recorded)[-1]


def one_line(text: object) -> str:
    """Return a text of somebody else with single spaces only, as for a cell of a table."""
    return " ".join(str(text).split())


def printable(text: str) -> str:
    r"""Return a text with a space for every character that shows nothing, moves the cursor or turns the direction.

    >>> printable("a\x1b[31m\u202eb\nc")
    'a [31m b c'
    """
    return "".join(character if character.isprintable() else " " for character in text)


_FOLDERS = re.compile(r"""(?<![^\s'"(=,])(/|[A-Za-z]:[\\/]|\\\\)[^\s'"()]*[/\\]""")  # of a path inside a text


def without_folders(content: Any) -> Any:
    r"""Return JSON in which every absolute path, of whichever system, is its last part: what leaves the machine.

    >>> without_folders({"folder": "/home/me/model one", "log": ["Reads 'C:\\me\\plans.json' and /me/b", "a / b", 1]})
    {'folder': 'model one', 'log': ["Reads 'plans.json' and b", 'a / b', 1]}
    """
    if isinstance(content, dict):
        return {key: without_folders(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_folders(value) for value in content]
    if not isinstance(content, str):
        return content
    if PurePosixPath(content).is_absolute() or PureWindowsPath(content).is_absolute():
        return file_name(content.rstrip("/\\"))
    return _FOLDERS.sub("", content)
