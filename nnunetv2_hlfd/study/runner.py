"""Running a study: several trainings at a time, each a child process with its own log, failures isolated."""

import csv
import io
import os
import time
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_hlfd.study.children import Child, Children
from nnunetv2_hlfd.study.progress import Progress
from nnunetv2_hlfd.study.runs import Run, splits_file
from nnunetv2_hlfd.study.teachings import Job, Teaching, find_teachings
from nnunetv2_hlfd.utilities.atomic import write_text
from nnunetv2_hlfd.utilities.child_process import last_lines
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.process_groups import check_nothing_runs
from nnunetv2_hlfd.utilities.signals import signals_interrupt

_POLL_SECONDS = 1.0
_AUGMENTATION_WORKERS = 12  # nnU-Net's default for a training
_COLUMNS = ("run", "arm", "seed", "fold", "result", "seconds", "peak_memory_bytes", "parallel")


class Runner:
    """Runs what is not finished.

    Args:
        runs: all of a study, in order.
        folder: for logs and runs.csv.
        device: cpu, cuda or mps.
        parallel: how many at a time.
    """

    def __init__(self, runs: Sequence[Run], folder: Path, device: str, parallel: int) -> None:
        self.runs, self.folder, self.device, self.parallel = list(runs), folder, device, parallel
        self.teachings = find_teachings(self.runs)
        self._taught: set[str] = set()  # names of teachings that have ended well since the start
        choose_device(device)
        self.gpus = visible_gpus() if device == "cuda" else []
        self.failed: dict[str, str] = {}

    def __call__(self) -> dict[str, str]:
        """Run everything; returns the names of the runs that failed or could not start, with the reason.

        Raises:
            UserError: where a training of an earlier start still runs.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        jobs: list[Job] = [*self.teachings, *self.runs]
        check_nothing_runs([self._log(job) for job in jobs])
        waiting = [job for job in jobs if not job.is_finished]
        with signals_interrupt(), Children() as children, Progress(self.runs) as progress:
            while waiting or children.running:
                waiting = self._start(waiting, children, progress)
                progress.update(len(children.running), len(waiting), len(self.failed))
                time.sleep(_POLL_SECONDS)
                for child in children.take_ended():
                    self._finish(child, progress)
            progress.update(0, 0, len(self.failed))
        return self.failed

    def _start(self, waiting: list[Job], children: Children, progress: Progress) -> list[Job]:
        """Start what can start; returns what still waits."""
        still = []
        for run in waiting:
            if reason := self._impossible(run):
                self.failed[run.name] = reason
                progress.say(f"skipped {run.name}: {reason}")
            elif len(children.running) < self.parallel and self._is_ready(run, children):
                taken = {child.slot for child in children.running}
                slot = next(number for number in range(self.parallel) if number not in taken)
                log = self._log(run)
                children.start(run, run.command(self.device), self._environment(run, slot), log, slot)
                progress.say(f"started {run.name}, log {log}")
            else:
                still.append(run)
        return still

    def _teachers(self, run: Job) -> list[Run]:
        """The run of this study that trains the teacher of a run, if it is one."""
        return [teacher for teacher in self.runs if teacher.model_folder == run.teacher and teacher.fold == run.fold]

    def _maps(self, run: Job) -> list[Teaching]:
        """What stores the maps that a run still needs."""
        return [teaching for teaching in self.teachings if run in teaching.runs and not teaching.is_finished]

    def _is_ready(self, run: Job, children: Children) -> bool:
        """Its teacher and maps are there; the first training of a data set, which writes the splits, runs alone."""
        splits = splits_file(run.dataset).is_file() or not children.running
        maps = all(teaching.name in self._taught for teaching in self._maps(run))
        return splits and maps and all(teacher.is_finished for teacher in self._teachers(run))

    def _impossible(self, run: Job) -> str | None:
        sources: list[Job] = [*self._teachers(run), *self._maps(run)]
        failed = [source.name for source in sources if source.name in self.failed]
        return f"its teacher {failed[0]} failed" if failed else None

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
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        elif self.parallel > 1:
            environment.setdefault("OMP_NUM_THREADS", str(cores))
        return environment

    def _finish(self, child: Child, progress: Progress) -> None:
        seconds = time.monotonic() - child.start
        code = child.process.returncode
        well = code == 0 and (isinstance(child.run, Teaching) or child.run.is_finished)
        result = "finished" if well else f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        self._record(child, seconds, result, progress)
        if well:
            if isinstance(child.run, Teaching):
                self._taught.add(child.run.name)
            progress.say(f"finished {child.run.name} in {seconds / 60:.1f} min")
            return
        self.failed[child.run.name] = f"{result}, log {child.log}"
        progress.say(f"FAILED {child.run.name}: {result}. The last lines of {child.log}:\n\n{last_lines(child.log)}\n")

    def _record(self, child: Child, seconds: float, result: str, progress: Progress) -> None:
        """Add a line to runs.csv: what each start took. Without it the trainings go on all the same."""
        run = child.run
        row = (run.name, run.arm, run.settings.seed, run.fold, result, round(seconds, 1), child.peak_bytes)
        try:
            _add_row(self.folder / "runs.csv", (*row, self.parallel))
        except UserError as error:
            progress.say(f"WARNING: {error}")

    def _log(self, run: Job) -> Path:
        return self.folder / f"{run.name}.log"


def _add_row(file: Path, row: Sequence[object]) -> None:
    """Write the table with a row more; half a row of a process that was killed is left out."""
    text = io.StringIO()
    writer = csv.writer(text)
    if file.is_file():
        whole, end, _ = file.read_bytes().decode(errors="replace").rpartition("\n")
        text.write(whole + end)
    else:
        writer.writerow(_COLUMNS)
    writer.writerow(row)
    write_text(file, text.getvalue())


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
