"""Child processes, each in a process group of its own with its workers, none of which outlives its parent."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from nnunetv2_hlfd.utilities import watchdog
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.lock import try_lock

END_SECONDS = 20  # that a group gets to end by itself
HAS_GROUPS = hasattr(os, "killpg")  # not on Windows
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


class Watchdog:
    """A process that kills the groups it knows once this process is gone, which may be killed itself."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Watchdog":
        if HAS_GROUPS:
            self._process = subprocess.Popen(  # noqa: S603 (a script of this package)
                [sys.executable, "-I", watchdog.__file__], stdin=subprocess.PIPE, start_new_session=True
            )
        return self

    def tell(self, group: int) -> None:
        """Tell that a group has started or, the second time, ended."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # somebody has ended it; the locks of the logs remain
                self._process.stdin.write(f"{group}\n".encode())
                self._process.stdin.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()


def signal_group(process: "subprocess.Popen[Any]", number: int) -> None:
    """Send a signal to a process and its workers."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses where only zombies are left
        if HAS_GROUPS:
            os.killpg(process.pid, number)
        else:
            process.terminate()


def run_in_group(command: Sequence[str], output: IO[Any], environment: Mapping[str, str]) -> int:
    """Run a command to its end, or to that of this process, even if it is killed; returns the exit code."""
    with Watchdog() as watchdog:
        process = subprocess.Popen(  # noqa: S603 (commands of nnU-Net and of this package)
            [*command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        watchdog.tell(process.pid)
        try:
            return process.wait()
        finally:
            signal_group(process, KILL)
            process.wait()
            watchdog.tell(process.pid)


def lock_log(file: IO[Any]) -> bool:
    """Lock an open file for this process and the children that inherit it; False where another holds it."""
    return sys.platform == "win32" or try_lock(file)  # Windows would lock the child out of its own log


def check_nothing_runs(logs: Sequence[Path]) -> None:
    """Check that no process holds the lock of its log: a child does for as long as it lives.

    Raises:
        UserError: naming the log of one that still runs after the time that a watchdog needs to end it.
    """
    for path in filter(Path.is_file, logs):
        end = time.monotonic() + END_SECONDS
        with path.open("ab") as log:
            while not lock_log(log):
                if time.monotonic() > end:
                    raise UserError(
                        f"The process of {path} still runs, from an earlier start of this command. Wait for its end or "
                        f"stop it."
                    )
                time.sleep(0.2)
