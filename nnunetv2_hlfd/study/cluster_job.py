"""One training of a study in a job of a cluster: what submitit hands to the node that it runs on."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from submitit.core.utils import DelayedSubmission
from submitit.slurm.slurm import SlurmJobEnvironment

from nnunetv2_hlfd.models.fold import FoldFolder
from nnunetv2_hlfd.utilities.child_process import executable

_END_SECONDS = 20  # that a training gets to end by itself
_KIB = 1 if sys.platform == "darwin" else 1024  # unit of ru_maxrss


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a training ended on its node.

    Attributes:
        code: its exit code; None where the job was told to end before the training had.
        seconds: that it took.
        peak_bytes: of its memory.
    """

    code: int | None
    seconds: float
    peak_bytes: int


@dataclass(kw_only=True)
class ClusterJob:
    """A training as submitit calls it, which may be more than once: Slurm starts a preempted job again.

    Attributes:
        command: of a new start.
        environment: beside that of the job.
        fold: where the training writes, so that it is continued from there; None for what finds that out by itself.
        written: folder and pattern of the files whose change shows that the training has come further.
        mark: `newest_change` of them when the job was submitted, or was last submitted again.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    fold: Path | None
    written: tuple[Path, str]
    mark: int

    def __call__(self) -> Outcome:
        """Train, in a process of its own; submitit's signals interrupt this one."""
        start = time.monotonic()
        process = subprocess.Popen(  # noqa: S603 (this package's own command)
            self._command(),
            env={"PYTHONUNBUFFERED": "1", **os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            preexec_fn=_ignore_warning,
        )
        code: int | None = None
        try:
            code = process.wait()
        except Exception as error:  # submitit's, from its signal handler: not to be started again
            print(f"The training is ended: {error}", flush=True)
        finally:
            _end(process)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _KIB
        return Outcome(code=code, seconds=time.monotonic() - start, peak_bytes=peak)

    def checkpoint(self) -> DelayedSubmission | None:
        """What submitit starts again at the time limit or after a preemption; None without any progress."""
        now = newest_change(self.written)
        if now == self.mark:
            return None
        self.mark = now
        return DelayedSubmission(self)

    def _command(self) -> list[str]:
        continuation = FoldFolder(self.fold).continuation() if self.fold else []
        return [executable(self.command[0]), *self.command[1:], *continuation]


def newest_change(written: tuple[Path, str]) -> int:
    """Time of the last change of files, in nanoseconds; 0 without files."""
    folder, pattern = written
    return max((file.stat().st_mtime_ns for file in folder.glob(pattern)), default=0)


def _ignore_warning() -> None:
    """Some clusters send the warning before the time limit to all processes of a job; it would end the training."""
    signal.signal(getattr(signal, f"SIG{SlurmJobEnvironment.USR_SIG}"), signal.SIG_IGN)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
