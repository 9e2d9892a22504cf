"""One program at a time in an output folder, by the lock file that `nnUNetv2_hlfd predict` honors as well.

The lock is that of the operating system, which lets go of it when the process ends, however it ends.
"""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .errors import UserError

LOCK_FILE = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other predictions into a folder out of the block. A file system without locks keeps nobody out.

    Raises:
        UserError: naming the process that is in the folder.
        OSError: where the lock file cannot be written.
    """
    file = folder / LOCK_FILE
    opened = _acquire(file)
    try:
        yield
    finally:
        with opened, suppress(OSError):
            file.unlink()  # while it is locked


def _acquire(file: Path) -> IO[Any]:
    while True:
        opened = file.open("a+b", buffering=0)  # so that a full disk is no error when it is closed
        if not _try_lock(opened):
            owner = _owner(opened)
            opened.close()
            raise UserError(f"{file.parent} is in use by {owner}. Wait for its end, stop it, or choose another folder.")
        with suppress(FileNotFoundError):
            if os.path.samestat(file.stat(), os.fstat(opened.fileno())):
                _write_owner(opened)
                return opened
        opened.close()  # whoever held the lock before has removed this file


def _try_lock(file: IO[Any]) -> bool:
    """Lock an open file; False where another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # Windows alone has it
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _write_owner(file: IO[Any]) -> None:
    with suppress(OSError):  # the lock holds on a full disk, too
        file.truncate(0)
        file.write(f"\npredict.pyz (process {os.getpid()} on {platform.node()}, since {time.ctime()})".encode())


def _owner(file: IO[Any]) -> str:
    with suppress(OSError):
        file.seek(1)  # Windows locks the first byte against reading, too
        if owner := file.read(1000).decode(errors="replace"):
            return owner
    return "another process"
