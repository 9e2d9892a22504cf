"""Trainings as child processes: each in a process group of its own, none outlives the study."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from nnunetv2_hlfd.study.teachings import Job
from nnunetv2_hlfd.utilities.child_process import executable
from nnunetv2_hlfd.utilities.process_groups import END_SECONDS, KILL, Watchdog, lock_log, signal_group


@dataclass(kw_only=True)
class Child:
    """A training that runs.

    Attributes:
        slot: its place among those that run at a time.
        peak_bytes: of its memory, once it has ended (not on Windows).
    """

    run: Job
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
        self._watchdog = Watchdog()

    def __enter__(self) -> "Children":
        self._watchdog.__enter__()
        return self

    def start(self, run: Job, command: Sequence[str], environment: Mapping[str, str], log: Path, slot: int) -> None:
        """Start a training with its output appended to a log."""
        with log.open("ab") as output:
            lock_log(output)
            process = subprocess.Popen(  # noqa: S603 (this package's own command)
                [executable(command[0]), *command[1:]],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._watchdog.tell(process.pid)
        self.running.append(Child(run=run, process=process, log=log, slot=slot))

    def take_ended(self) -> list[Child]:
        """Those that have ended since, without the workers that a killed training leaves behind."""
        ended = [child for child in self.running if child.poll() is not None]
        for child in ended:
            self.running.remove(child)
            signal_group(child.process, KILL)
            self._watchdog.tell(child.process.pid)
        return ended

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self.running:
            signal_group(child.process, signal.SIGTERM)
        end = time.monotonic() + END_SECONDS
        while any(child.poll() is None for child in self.running) and time.monotonic() < end:
            time.sleep(0.1)
        for child in self.running:
            signal_group(child.process, KILL)
            child.process.wait()
            self._watchdog.tell(child.process.pid)
        self._watchdog.__exit__(kind, error, trace)
