"""The trainings of a study on this machine: each gets a GPU of its own, or an equal share of the cores."""

import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType

from nnunetv2_hlfd.study.children import Child, Children
from nnunetv2_hlfd.study.launcher import CLUSTER_FOLDER, SUBMITTED, Ended, result_in_words
from nnunetv2_hlfd.study.teachings import Job
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.process_groups import check_nothing_runs

_AUGMENTATION_WORKERS = 12  # nnU-Net's default for a training


class LocalLauncher:
    """Trainings as child processes. Leaving the context ends them; their checkpoints stay.

    Args:
        folder: for logs.
        device: cpu, cuda or mps.
        parallel: how many at a time.
    """

    poll_seconds = 1.0

    def __init__(self, folder: Path, device: str, parallel: int) -> None:
        self.folder, self.device, self.parallel = folder, device, parallel
        choose_device(device)
        self._gpus = visible_gpus() if device == "cuda" else []
        self._children = Children()

    def __enter__(self) -> "LocalLauncher":
        self._children.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._children.__exit__(kind, error, trace)

    @property
    def running(self) -> Collection[str]:
        """Names of the jobs that run."""
        return [child.run.name for child in self._children.running]

    def adopt(self, jobs: Sequence[Job]) -> None:
        """Check that no training of an earlier start still runs, here or on a cluster.

        Raises:
            UserError: naming its log, or the jobs.
        """
        _check_no_jobs(self.folder / CLUSTER_FOLDER, jobs)
        check_nothing_runs([self._log(job) for job in jobs])

    def start(self, run: Job) -> Path:
        """Start a training; returns its log."""
        taken = {child.slot for child in self._children.running}
        slot = next(number for number in range(self.parallel) if number not in taken)
        log = self._log(run)
        self._children.start(run, run.command(self.device), self._environment(run, slot), log, slot)
        return log

    def take_ended(self) -> list[Ended]:
        """Those that have ended since."""
        return [_ended(child) for child in self._children.take_ended()]

    def _log(self, run: Job) -> Path:
        return self.folder / f"{run.name}.log"

    def _environment(self, run: Job, slot: int) -> dict[str, str]:
        """One GPU, or an equal share of the cores, for each."""
        cores = max(1, (os.cpu_count() or 1) // self.parallel)
        environment = {
            "OMP_WAIT_POLICY": "passive",
            "PYTHONUNBUFFERED": "1",
            "nnUNet_n_proc_DA": str(min(_AUGMENTATION_WORKERS, cores)),
            **os.environ,
            **run.environment(),
        }
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        elif self.parallel > 1:
            environment.setdefault("OMP_NUM_THREADS", str(cores))
        return environment


def _check_no_jobs(folder: Path, jobs: Sequence[Job]) -> None:
    """Check that the cluster holds no job whose end `-launcher slurm` has not noted."""
    files = [file for job in jobs if not job.is_finished for file in (folder / job.name).glob(f"*{SUBMITTED}")]
    if files:
        ids = " ".join(file.name.removesuffix(SUBMITTED) for file in files)
        raise UserError(
            f"Jobs of this study may still be queued or run on a cluster. Go on with -launcher slurm. Or end them "
            f"(scancel {ids}), remove {folder}, and start again."
        )


def _ended(child: Child) -> Ended:
    return Ended(
        run=child.run,
        result=result_in_words(child.run, child.process.returncode),
        log=child.log,
        seconds=time.monotonic() - child.start,
        peak_bytes=child.peak_bytes,
    )


def default_parallel(device: str) -> int:
    """One training for each GPU, or for every four cores of a CPU."""
    return len(visible_gpus()) if device == "cuda" else max(1, (os.cpu_count() or 1) // 4)


def visible_gpus() -> list[str]:
    """GPUs as CUDA_VISIBLE_DEVICES names them.

    Raises:
        UserError: where there is none.
    """
    import torch

    choose_device("cuda")
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(index) for index in range(torch.cuda.device_count())]
