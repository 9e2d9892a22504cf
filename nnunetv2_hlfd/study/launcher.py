"""Where the trainings of a study run: what the runner asks of this machine or of a cluster."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from nnunetv2_hlfd.study.teachings import Job, Teaching

FINISHED = "finished"
CLUSTER_FOLDER = "slurm"  # of a study: a folder for each run, with the files of its jobs
SUBMITTED = "_submitted.pkl"  # after the number of a job: what it runs, until its end has been noted


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a training ended.

    Attributes:
        result: in words, `FINISHED` where all is well.
        log: where it has written; may be missing on a cluster.
        seconds: that it took; None where nobody knows.
        peak_bytes: of its memory; None where nobody knows.
        goes_on: it was interrupted and has come further than before: it is to be started again.
    """

    run: Job
    result: str
    log: Path
    seconds: float | None = None
    peak_bytes: int | None = None
    goes_on: bool = False


class Launcher(Protocol):
    """Starts trainings and tells which have ended.

    Attributes:
        poll_seconds: how often to ask it.
    """

    poll_seconds: float

    @property
    def parallel(self) -> int | None:
        """Most trainings at a time; None for any number."""

    def __enter__(self) -> "Launcher":
        """Get ready to start trainings."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing behind that would not be found at the next start of the study."""

    @property
    def running(self) -> Collection[str]:
        """Names of the jobs that were started, by this process or an earlier one, and have not been seen to end."""

    def adopt(self, jobs: Sequence[Job]) -> None:
        """Take over what earlier starts of the study have left running.

        Raises:
            UserError: where that is not possible.
        """

    def start(self, run: Job) -> Path:
        """Start a training; returns its log."""

    def take_ended(self) -> list[Ended]:
        """Those that have ended since."""


def result_in_words(run: Job, code: int) -> str:
    """The result of a training by its exit code and by what it has written."""
    if code == 0 and (isinstance(run, Teaching) or run.is_finished):
        return FINISHED
    return f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
