"""Trainings as child processes: each in a process group of its own, none outlives the study."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from nnunetv2_hlfd.study import watchdog
from nnunetv2_hlfd.study.runs import Run
from nnunetv2_hlfd.utilities.child_process import executable
from nnunetv2_hlfd.utilities.errors import UserError

if sys.platform != "win32":
    import fcntl

_END_SECONDS = 20
_HAS_GROUPS = hasattr(os, "killpg")  # not on Windows


@dataclass(kw_only=True)
class Child:
    """A training that runs.

    Attributes:
        slot: its place among those that run at a time.
        peak_bytes: of its memory, once it has ended (not on Windows).
    """

    run: Run
    process: "subprocess.Popen[bytes]"
    log: Path
    slot: int
    start: float = field(default_factory=time.monotonic)
    peak_bytes: int | None = None

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        if not hasattr(os, "wait4"):
            return self.process.poll()
        if self.process.returncode is None:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)
                self.peak_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return self.process.returncode


class Children:
    """The trainings that run now. Leaving the context ends them; their checkpoints stay.

    A watchdog ends them where this process is killed and cannot.
    """

    def __init__(self) -> None:
        self.running: list[Child] = []
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Children":
        if _HAS_GROUPS:
            self._watchdog = subprocess.Popen(  # noqa: S603 (a script of this package)
                [sys.executable, "-I", watchdog.__file__], stdin=subprocess.PIPE, start_new_session=True
            )
        return self

    def start(self, run: Run, command: Sequence[str], environment: Mapping[str, str], log: Path, slot: int) -> None:
        """Start a training with its output appended to a log."""
        with log.open("ab") as output:
            lock(output)
            process = subprocess.Popen(  # noqa: S603 (this package's own command)
                [executable(command[0]), *command[1:]],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._tell_watchdog(process.pid)
        self.running.append(Child(run=run, process=process, log=log, slot=slot))

    def take_ended(self) -> list[Child]:
        """Those that have ended since, without the workers that a killed training leaves behind."""
        ended = [child for child in self.running if child.poll() is not None]
        for child in ended:
            self.running.remove(child)
            _signal_group(child.process, getattr(signal, "SIGKILL", signal.SIGTERM))
            self._tell_watchdog(child.process.pid)
        return ended

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self.running:
            _signal_group(child.process, signal.SIGTERM)
        end = time.monotonic() + _END_SECONDS
        while any(child.poll() is None for child in self.running) and time.monotonic() < end:
            time.sleep(0.1)
        for child in self.running:
            _signal_group(child.process, getattr(signal, "SIGKILL", signal.SIGTERM))
            child.process.wait()
            self._tell_watchdog(child.process.pid)
        if self._watchdog is not None:
            assert self._watchdog.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._watchdog.stdin.close()
            self._watchdog.wait()

    def _tell_watchdog(self, group: int) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # somebody has ended it; the locks of the logs remain
                self._watchdog.stdin.write(f"{group}\n".encode())
                self._watchdog.stdin.flush()


def check_nothing_runs(logs: Sequence[Path]) -> None:
    """A training holds the lock of its log for as long as it lives.

    Raises:
        UserError: naming the log of one that still runs after the time that a watchdog needs to end it.
    """
    for path in filter(Path.is_file, logs):
        end = time.monotonic() + _END_SECONDS
        with path.open("ab") as log:
            while not lock(log):
                if time.monotonic() > end:
                    raise UserError(
                        f"The training of {path} still runs, from an earlier start of this study or another one. Wait "
                        f"for its end or stop it."
                    )
                time.sleep(0.2)


def lock(file: IO[bytes]) -> bool:
    """Lock an open file for this process and the children that inherit it; False where another holds it."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    """To a training and its worker processes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses where only zombies are left
        if _HAS_GROUPS:
            os.killpg(process.pid, number)
        else:
            process.terminate()
