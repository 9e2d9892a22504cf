"""Writing files whole or not at all, whatever ends the process and however full the disk is.

A file is written into a hidden folder of this process beside its target, flushed to the disk, and renamed. So the
target is at any moment the previous file or the new one, two processes never share a temporary file, and the temporary
file has the target's own name, by whose ending libraries choose a format.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from nnunetv2_hlfd.deploy.runtime.errors import last_line
from nnunetv2_hlfd.deploy.runtime.hidden_folder import hidden_folder
from nnunetv2_hlfd.utilities.errors import UserError


@contextmanager
def writing(target: Path, library_errors: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Name the target where the block cannot write it.

    Args:
        target: file or folder that is to be written.
        library_errors: what the library that writes raises beside OSError where it cannot, as torch's RuntimeError.

    Raises:
        UserError: in place of these errors.
    """
    errors: tuple[type[Exception], ...] = (OSError, *library_errors)
    try:
        yield
    except errors as error:
        raise UserError(
            f"Could not write {target}: {last_line(error)}. The previous file, if any, is intact."
        ) from error


@contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """Hand out an empty folder beside a target; it is removed at the end with all that was not published.

    What processes that were killed have left beside the target is removed, too.

    Raises:
        UserError: in place of OSError, naming the target.
    """
    with writing(target), hidden_folder(target.parent) as folder:
        yield folder


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Hand out an empty folder for temporary files; what killed processes have left of theirs is removed.

    Raises:
        UserError: where the system has no place for them.
    """
    try:
        place = Path(tempfile.gettempdir())
    except OSError as error:
        raise UserError(f"No folder for temporary files can be written: {error}. Name one in TMPDIR.") from error
    with partial_folder(place / "temporary files") as folder:
        yield folder


def publish(temporary: Path, target: Path) -> None:
    """Flush a file, or a folder and all files in it, to the disk and let it take the place of the target.

    Raises:
        OSError: where that is not possible; the target is as before.
    """
    for file in sorted(temporary.rglob("*")) if temporary.is_dir() else [temporary]:
        if file.is_file():
            with file.open("r+b") as opened:
                os.fsync(opened.fileno())
    temporary.replace(target)
    _flush_folder(target.parent)


@contextmanager
def atomic_path(path: Path, library_errors: tuple[type[Exception], ...] = ()) -> Iterator[Path]:
    """Hand out a temporary path with the target's name; what is written there becomes the target at the block's end.

    An error in the block leaves the target as it was. A check of what was written belongs into the block: a library
    may write half of a file onto a full disk and say nothing.

    Args:
        path: of the target, in a folder that exists.
        library_errors: see `writing`.

    Raises:
        UserError: where the target cannot be written.
    """
    with writing(path, library_errors), partial_folder(path) as folder:
        temporary = folder / path.name
        yield temporary
        publish(temporary, path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file.

    Raises:
        UserError: where it cannot be written.
    """
    with atomic_path(path) as temporary:
        _write(temporary, content)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files that belong together: all are on the disk before the first takes its name.

    Args:
        folder: that exists.
        contents: name -> content, one at least.

    Raises:
        UserError: where they cannot be written; the previous ones are intact.
    """
    with partial_folder(folder / next(iter(contents))) as temporary:
        for name, content in contents.items():
            with writing(folder / name):
                _write(temporary / name, content)
        for name in contents:
            with writing(folder / name):
                publish(temporary / name, folder / name)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, with its line ends as they are.

    Raises:
        UserError: where it cannot be written.
    """
    write_bytes(path, text.encode())


def write_json(path: Path, content: object) -> None:
    """Write JSON.

    Raises:
        UserError: where it cannot be written.
    """
    write_text(path, json.dumps(content, indent=4) + "\n")


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    if (size := path.stat().st_size) != len(content):
        raise OSError(f"{size} of {len(content)} bytes were written")


def _flush_folder(folder: Path) -> None:
    """Make a rename in it durable. Windows cannot open folders, and some network file systems refuse to flush them."""
    if os.name == "posix":
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
