"""What a study asks of Slurm itself, and what has to be right before its first job."""

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.optional_packages import needed

_COMMANDS = ("sbatch", "srun", "squeue", "scancel")
_OURS = ("job_name", "stderr_to_stdout")
_LOOK_SECONDS = 30.0
_NEW_SECONDS = 60.0  # in which a job may not be in the queue yet
_UNSURE = ("UNKNOWN", "PREEMPTED", "REQUEUED")  # of which submitit expects that the job still comes


def slurm_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check the entry `slurm` of a study, and that this machine can submit jobs.

    Returns:
        what submitit's executor is given.

    Raises:
        UserError: naming what is missing or not understood.
    """
    submitit = needed("submitit", "slurm")
    missing = [command for command in _COMMANDS if shutil.which(command) is None]
    if missing:
        raise UserError(
            f"-launcher slurm needs Slurm's commands on the PATH, found no {', '.join(missing)}. Start the study on a "
            f"login node of the cluster, or without -launcher."
        )
    _check_values(given)
    executor = submitit.SlurmExecutor(Path())
    try:
        executor.update_parameters(**given)
    except (ValueError, TypeError) as error:
        raise UserError(f"slurm: {error}") from error
    parameters = dict(given)
    if cores := given.get("cpus_per_task"):  # since Slurm 22.05, srun does not take it over from sbatch
        parameters.setdefault("srun_args", [f"--cpus-per-task={cores}"])
    return parameters


def _check_values(given: Mapping[str, Any]) -> None:
    minutes = given.get("time")
    if isinstance(minutes, bool) or not isinstance(minutes, int) or minutes < 1:
        raise UserError(f"slurm: time: expected the minutes of a job, such as 1440 for a day, got {minutes!r}.")
    for name in ("nodes", "ntasks_per_node"):
        if given.get(name, 1) != 1:
            raise UserError(f"slurm: {name}: expected 1, got {given[name]!r}: a job is one training on one machine.")
    for name in _OURS:
        if name in given:
            raise UserError(f"slurm: {name} is set by the study itself. Leave it out.")


def nnunet_variables() -> dict[str, str]:
    """The variables of nnU-Net that are set here; a cluster need not hand on the environment of whoever submits."""
    return {name: value for name, value in os.environ.items() if name.startswith("nnUNet_")}


class QueueWatch:
    """Finds the jobs of which Slurm's accounting says nothing and which its queue does not hold either."""

    def __init__(self) -> None:
        self._jobs: set[str] | None = None
        self._looked = float("-inf")

    def has_lost(self, job: str, state: str, since: float | None) -> bool:
        """Whether a job will not come back.

        Args:
            job: its number.
            state: by the accounting.
            since: when this process has submitted it, as `time.monotonic`; None for an earlier start.
        """
        if state.upper() not in _UNSURE or (since is not None and time.monotonic() < since + _NEW_SECONDS):
            return False
        if time.monotonic() > self._looked + _LOOK_SECONDS:
            self._looked, self._jobs = time.monotonic(), _queued_jobs()
        return self._jobs is not None and job not in self._jobs


def _queued_jobs() -> set[str] | None:
    """Numbers of this user's jobs that are queued or run; None where Slurm does not answer."""
    command = ["squeue", "--noheader", "--format=%A", f"--user={getpass.getuser()}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return set(answer.stdout.split())
