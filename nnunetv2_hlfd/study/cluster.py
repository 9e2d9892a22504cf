"""The trainings of a study as jobs of a Slurm cluster, through submitit.

The files that submitit writes into the study's folder are the record of the jobs: a job is known from the moment at
which it can run (`JOB_submitted.pkl`; without that file a job ends by itself) until its end has been noted.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import submitit
from nnunetv2.paths import nnUNet_preprocessed
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError

from nnunetv2_hlfd.deploy.runtime.signals import signals_wait
from nnunetv2_hlfd.study.cluster_job import ClusterJob, Outcome, newest_change
from nnunetv2_hlfd.study.launcher import CLUSTER_FOLDER, FINISHED, SUBMITTED, Ended, result_in_words
from nnunetv2_hlfd.study.runs import Run
from nnunetv2_hlfd.study.slurm import QueueWatch, nnunet_variables
from nnunetv2_hlfd.study.teachings import Job
from nnunetv2_hlfd.utilities.errors import UserError

_LAG_SECONDS = 60.0  # after which a shared folder shows what another machine has written
_MOST_TIMEOUTS = 10_000  # no limit: a job without progress ends by itself
_INTERRUPTED = ("TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "REQUEUED", "UNKNOWN")


@dataclass(kw_only=True)
class _Submitted:
    """A job of the cluster.

    Attributes:
        since: of its submission by this process; None for a job of an earlier start.
        over_since: when it was first seen to be over; None before.
    """

    run: Job
    job: "submitit.Job[Outcome]"
    since: float | None = None
    over_since: float | None = None


class ClusterLauncher:
    """Trainings as jobs, which go on when this process ends.

    Args:
        folder: of the study, on a file system that all machines share.
        device: that the trainings are to use.
        parallel: most jobs in the queue at a time; None for any number.
        parameters: of submitit's executor.
        executor: submitit's, for Slurm or, in tests, for processes of this machine.
    """

    poll_seconds = 10.0

    def __init__(
        self,
        folder: Path,
        device: str,
        parallel: int | None,
        parameters: Mapping[str, Any],
        executor: "type[submitit.SlurmExecutor | submitit.LocalExecutor]" = submitit.SlurmExecutor,
    ) -> None:
        self.folder, self.device, self.parallel = folder / CLUSTER_FOLDER, device, parallel
        self._parameters, self._executor = dict(parameters), executor
        self._jobs: dict[str, _Submitted] = {}
        self._queue = QueueWatch()

    def __enter__(self) -> "ClusterLauncher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the jobs alone, and say how they can be ended."""
        if self._jobs:
            ids = " ".join(submitted.job.job_id for submitted in self._jobs.values())
            print(f"{len(self._jobs)} jobs stay queued or running; the same command takes them over.")
            print(f"To end them: scancel {ids}", flush=True)

    @property
    def running(self) -> Collection[str]:
        """Names of the jobs that are queued or run."""
        return self._jobs.keys()

    def adopt(self, jobs: Sequence[Job]) -> None:
        """Take over the jobs of earlier starts whose end nobody has noted."""
        for run in jobs:
            files = sorted(self._folder(run).glob(f"*{SUBMITTED}"), key=lambda file: file.stat().st_mtime)
            if files:
                number = files[-1].name.removesuffix(SUBMITTED)
                job = self._executor.job_class(self._folder(run), number)
                self._jobs[run.name] = _Submitted(run=run, job=job)

    def start(self, run: Job) -> Path:
        """Submit a training; returns the log that it will write.

        Raises:
            UserError: where the cluster refuses the job.
        """
        executor = self._executor(self._folder(run), max_num_timeout=_MOST_TIMEOUTS)
        executor.update_parameters(**self._parameters, job_name=run.name, stderr_to_stdout=True)
        written = _written_by(run)
        work = ClusterJob(
            command=run.start_command(self.device),
            environment={**nnunet_variables(), **run.environment()},
            fold=run.fold_folder.path if isinstance(run, Run) else None,
            written=written,
            mark=newest_change(written),
        )
        try:
            with signals_wait():  # between sbatch and its record here
                job = executor.submit(work)
                self._jobs[run.name] = _Submitted(run=run, job=job, since=time.monotonic())
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            raise UserError(
                f"The cluster has refused the job of {run.name}: {error}. Mend the entry 'slurm' of the study, or "
                f"submit fewer jobs at a time (-np N). Run the same command again to continue."
            ) from error
        return Path(job.paths.stdout)

    def take_ended(self) -> list[Ended]:
        """Those that have ended since; their files but for the log are removed."""
        taken = []
        for name, submitted in list(self._jobs.items()):
            if self._is_over(submitted) and (ended := _ended(submitted)):
                taken.append(ended)
                del self._jobs[name]
                paths = submitted.job.paths
                for file in (paths.result_pickle, paths.submitted_pickle):
                    file.unlink(missing_ok=True)
        return taken

    def _is_over(self, submitted: _Submitted) -> bool:
        job = submitted.job
        return job.done() or self._queue.has_lost(job.job_id, job.state, submitted.since)

    def _folder(self, run: Job) -> Path:
        return self.folder / run.name


def _ended(submitted: _Submitted) -> Ended | None:
    """How a job that is over has ended; None while the shared folder may not show it all yet."""
    run, job = submitted.run, submitted.job
    outcome, state = _outcome(job), job.state.upper().split(" ")[0]  # CANCELLED by 1000
    ended = _judge(run, job, outcome, state)
    unseen = (outcome is None and state == "COMPLETED") or (outcome is not None and outcome.code == 0)
    if ended.result != FINISHED and unseen:
        submitted.over_since = submitted.over_since or time.monotonic()
        if time.monotonic() < submitted.over_since + _LAG_SECONDS:
            return None
    return ended


def _judge(run: Job, job: "submitit.Job[Outcome]", outcome: Outcome | None, state: str) -> Ended:
    interrupted = outcome.code is None if outcome else state in _INTERRUPTED
    if outcome is not None and outcome.code is not None:
        result = result_in_words(run, outcome.code)
    elif isinstance(run, Run) and run.is_finished:
        result = FINISHED
    else:
        result = "time limit or preemption" if outcome else f"Slurm says {state}"
    return Ended(
        run=run,
        result=result,
        log=Path(job.paths.stdout),
        seconds=outcome.seconds if outcome else None,
        peak_bytes=outcome.peak_bytes if outcome else None,
        goes_on=interrupted and result != FINISHED and _has_come_further(job),
    )


def _outcome(job: "submitit.Job[Outcome]") -> Outcome | None:
    """What the job has handed back; None where it was killed, or has failed beside the training."""
    if job.paths.result_pickle.exists():
        with suppress(UncompletedJobError):
            return job.result()
    return None


def _has_come_further(job: "submitit.Job[Outcome]") -> bool:
    with suppress(Exception):  # a file of another version of this package
        work = job.submission().function
        return isinstance(work, ClusterJob) and newest_change(work.written) != work.mark
    return False


def _written_by(run: Job) -> tuple[Path, str]:
    """Folder and pattern of the files that a job writes as it comes further."""
    if isinstance(run, Run):
        return run.fold_folder.path, "checkpoint_*.pth"
    return Path(str(nnUNet_preprocessed)) / run.dataset, "*_teacher_*/*"
