"""One process at a time in a folder: whoever comes second is told who is there.

The lock is that of the operating system on a hidden file in the folder. The system lets go of it when the process
ends, however it ends, so a file that was left behind locks nothing.
"""

import errno
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import lock_descriptor, unlock_descriptor

from nnunetv2_hlfd.utilities.atomic import writing
from nnunetv2_hlfd.utilities.errors import UserError

LOCK_FILE = ".lock"
_OWNER_OFFSET = 1  # Windows locks the first byte against reading, too
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_POLL_SECONDS = 0.1


@contextmanager
def locked(folder: Path, work: str, *, name: str = LOCK_FILE, wait_seconds: float = 0) -> Iterator[None]:
    """Keep other processes that ask for the same lock out of the block.

    A file system without locks keeps nobody out.

    Args:
        folder: that is worked in; made where it is missing.
        work: what is done there, as the other process is told, such as `nnUNetv2_hlfd predict`.
        name: of the lock file; different names exclude nobody.
        wait_seconds: for another process's end.

    Raises:
        UserError: naming the process that is in the folder, or where the lock file cannot be written.
    """
    file = folder / name
    with writing(file):
        folder.mkdir(parents=True, exist_ok=True)
        opened = _acquire(file, wait_seconds)
        _write_owner(opened, work)
    try:
        yield
    finally:
        with opened:
            _release(file, opened)


def try_lock(file: IO[Any]) -> bool:
    """Lock an open file for this process and the children that inherit it; False where another holds it.

    On a file system without locks nobody holds it.
    """
    try:
        return lock_descriptor(file.fileno(), blocking=False)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return True
        raise


def _acquire(file: Path, wait_seconds: float) -> IO[Any]:
    end = time.monotonic() + wait_seconds
    while True:
        opened = file.open("a+b", buffering=0)  # so that a full disk is no error when it is closed
        try:
            if try_lock(opened):
                if _is_at(file, opened):
                    return opened
            elif time.monotonic() >= end:
                raise UserError(
                    f"{file.parent} is in use by {_owner(opened)}. Wait for its end, stop it, or choose another folder."
                )
            else:
                time.sleep(_POLL_SECONDS)
        except BaseException:
            opened.close()
            raise
        opened.close()


def _release(file: Path, opened: IO[Any]) -> None:
    with suppress(OSError):
        if _is_at(file, opened):
            file.unlink()  # while it is locked: whoever waits for it sees that it is gone and makes another
    with suppress(OSError):
        unlock_descriptor(opened.fileno())  # for children, too, that were forked and have inherited it


def _is_at(file: Path, opened: IO[Any]) -> bool:
    """Whether the file was not removed by whoever held the lock before."""
    with suppress(FileNotFoundError):
        return os.path.samestat(file.stat(), os.fstat(opened.fileno()))
    return False


def _write_owner(opened: IO[Any], work: str) -> None:
    with suppress(OSError):  # the lock holds on a full disk, too
        opened.truncate(0)
        opened.write(f"\n{work} (process {os.getpid()} on {platform.node()}, since {time.ctime()})".encode())
        opened.flush()


def _owner(opened: IO[Any]) -> str:
    with suppress(OSError):
        opened.seek(_OWNER_OFFSET)
        if owner := opened.read(1000).decode(errors="replace"):
            return owner
    return "another process"
