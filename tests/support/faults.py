"""Real faults of disks: file systems that are small or read-only, and a limit on the size of files."""

import functools
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from nnunetv2_hlfd.utilities.lock import LOCK_FILE

_MOUNT = 'mount -t tmpfs -o "$0" tmpfs "$1" && shift && exec "$@"'


def run_python(code: str, *arguments: object, file_bytes: int | None = None) -> "subprocess.CompletedProcess[str]":
    """Run code in a process of its own.

    Args:
        code: in Python.
        arguments: its sys.argv[1:].
        file_bytes: no file that it writes can grow beyond (RLIMIT_FSIZE).
    """

    def limit() -> None:
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit, timeout=120)


def run_on_disk(folder: Path, options: str, command: Sequence[object]) -> "subprocess.CompletedProcess[str]":
    """Run a command that finds an empty file system of its own in a folder.

    Args:
        folder: where nobody else sees the file system; what is in it is hidden.
        options: of a tmpfs, such as size=256k.
        command: to run. Files that it writes into the folder are gone with it.
    """
    if not _can_mount():
        pytest.skip("this system does not let a test mount a file system of its own")
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", _MOUNT, options, str(folder), *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)


@functools.cache
def _can_mount() -> bool:
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /tmp"]
    return (
        shutil.which("unshare") is not None and subprocess.run(words, capture_output=True, check=False).returncode == 0
    )


_HOLD = """
import sys
from pathlib import Path
from nnunetv2_hlfd.utilities.lock import locked
with locked(Path(sys.argv[1]), "the other work", name=sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another_process(folder: Path, name: str = LOCK_FILE) -> "Iterator[subprocess.Popen[str]]":
    """A process that holds the lock of a folder until the block ends, it is killed or its standard input is closed."""
    command = [sys.executable, "-c", _HOLD, str(folder), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process  # at the end of the block its standard input is closed


def descendants(process: int) -> list[int]:
    """Processes that a process has started, and those that these have started (Linux)."""
    found = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, thread.read_text().split()):
                found += [child, *descendants(child)]
    return found


def is_alive(process: int) -> bool:
    """Whether it has not ended (Linux)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
