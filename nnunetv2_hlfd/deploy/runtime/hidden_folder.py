"""Hidden folders for files that are being written, and the end of those that killed processes have left."""

import os
import platform
import secrets
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".partial"
_ABANDONED_SECONDS = 24 * 3600  # no write takes as long


def _machine() -> str:
    """Where the number of a process means something: this machine since its start, and this container.

    Containers on one machine may have the machine's name, and cloned machines have each other's.
    """
    parts = [platform.node()]
    with suppress(OSError):  # Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return f"{zlib.crc32(''.join(parts).encode()):08x}"


_HOST = _machine()


@contextmanager
def hidden_folder(place: Path) -> Iterator[Path]:
    """Hand out an empty folder of this process; it is removed at the end with all that is still in it.

    What processes that were killed have left in the same place is removed, too.

    Args:
        place: folder to make it in.

    Raises:
        OSError: where nothing can be made there.
    """
    for leftover in place.glob(f"{_PREFIX}-*-*-*"):
        if _is_abandoned(leftover):
            shutil.rmtree(leftover, ignore_errors=True)
    folder = place / f"{_PREFIX}-{_HOST}-{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_leftover(path: Path) -> bool:
    """Whether a file or folder is of a write that is under way, or was ended by a kill."""
    return path.name.startswith(f"{_PREFIX}-")


def _is_abandoned(leftover: Path) -> bool:
    """Return whether its process has ended. What is not of this machine, since its start, has to be old."""
    host, process = leftover.name.split("-")[1:3]
    if host == _HOST and os.name == "posix" and process.isdecimal():  # on Windows, signal 0 would end the process
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):  # somebody else's process
            return False
        return False
    with suppress(OSError):
        return time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS
    return False
