"""Running a study: several trainings at a time, each a child process with its own log, failures isolated."""

import contextlib
import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from nnunetv2_hlfd.child_process import executable, last_lines
from nnunetv2_hlfd.study.runs import Run

if sys.platform != "win32":
    import fcntl

_POLL_SECONDS = 1.0
_POLL_SECONDS_IN_LOGS = 30
_END_SECONDS = 20
_EPOCH = re.compile(rb"Epoch (\d+)\s*$", re.MULTILINE)


@dataclass(kw_only=True)
class _Child:
    """A training that runs."""

    run: Run
    process: "subprocess.Popen[bytes]"
    log: Path
    slot: int
    start: float = field(default_factory=time.monotonic)
    peak_bytes: int | None = None

    def poll(self) -> int | None:
        """Its exit code, once it has ended; then the peak of its memory is known, too (not on Windows)."""
        if not hasattr(os, "wait4"):
            return self.process.poll()
        if self.process.returncode is None:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)
                self.peak_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return self.process.returncode


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
        self.children: list[_Child] = []
        self.failed: dict[str, str] = {}

    def __call__(self) -> dict[str, str]:
        """Run everything; returns the names of the runs that failed or could not start, with the reason.

        Raises:
            ValueError: where a training of an earlier start still runs.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_nothing_runs()
        waiting = [run for run in self.runs if not run.is_finished]
        total = sum(run.settings.epochs for run in self.runs)
        interval = _POLL_SECONDS if sys.stdout.isatty() else _POLL_SECONDS_IN_LOGS
        with self._end_children(), tqdm(total=total, unit="epoch", mininterval=interval, file=sys.stdout) as bar:
            while waiting or self.children:
                waiting = self._start(waiting)
                time.sleep(_POLL_SECONDS)
                for child in [each for each in self.children if each.poll() is not None]:
                    self._finish(child)
                self._show(bar, len(waiting))
        return self.failed

    def _start(self, waiting: list[Run]) -> list[Run]:
        """Start what can start; returns what still waits."""
        still = []
        for run in waiting:
            if reason := self._impossible(run):
                self.failed[run.name] = reason
            elif len(self.children) < self.parallel and self._is_ready(run):
                self.children.append(self._child(run))
            else:
                still.append(run)
        return still

    def _teachers(self, run: Run) -> list[Run]:
        """The run of this study that trains the teacher of a run, if it is one."""
        return [each for each in self.runs if each.model_folder == run.teacher and each.fold == run.fold]

    def _is_ready(self, run: Run) -> bool:
        return all(each.is_finished for each in self._teachers(run))

    def _impossible(self, run: Run) -> str | None:
        failed = [each.name for each in self._teachers(run) if each.name in self.failed]
        return f"its teacher {failed[0]} failed" if failed else None

    def _child(self, run: Run) -> _Child:
        taken = {child.slot for child in self.children}
        slot = next(each for each in range(self.parallel) if each not in taken)
        log = self._log(run)
        command = run.command(self.device)
        with log.open("ab") as output:
            _lock(output)
            process = subprocess.Popen(  # noqa: S603 (this package's own command)
                [executable(command[0]), *command[1:]], env=self._environment(run, slot), stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return _Child(run=run, process=process, log=log, slot=slot)

    def _environment(self, run: Run, slot: int) -> dict[str, str]:
        """One GPU, or an equal share of the cores, for each."""
        environment = {"OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1", **os.environ, **run.environment()}
        if self.device == "cuda":
            gpus = visible_gpus()
            environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        elif self.parallel > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.parallel)))
        return environment

    def _finish(self, child: _Child) -> None:
        self.children.remove(child)
        seconds = time.monotonic() - child.start
        well = child.process.returncode == 0 and child.run.is_finished
        self._record(child, seconds, "finished" if well else f"exit code {child.process.returncode}")
        if well:
            tqdm.write(f"finished {child.run.name} in {seconds / 60:.1f} min")
            return
        self.failed[child.run.name] = f"exit code {child.process.returncode}, log {child.log}"
        tqdm.write(f"FAILED {child.run.name}: the last lines of {child.log}:\n\n{last_lines(child.log)}\n")

    def _record(self, child: _Child, seconds: float, result: str) -> None:
        """Add a line to runs.csv: what each start took."""
        file = self.folder / "runs.csv"
        new = not file.exists()
        with file.open("a", newline="", encoding="utf-8") as opened:
            writer = csv.writer(opened)
            if new:
                writer.writerow(["run", "arm", "seed", "fold", "result", "seconds", "peak_memory_bytes", "parallel"])
            run = child.run
            writer.writerow([run.name, run.arm, run.settings.seed, run.fold, result, round(seconds, 1),
                             child.peak_bytes, self.parallel])  # fmt: skip

    def _show(self, bar: "tqdm[Any]", waiting: int) -> None:
        bar.n = sum(self._epochs_done(run) for run in self.runs)
        finished = sum(run.is_finished for run in self.runs)
        bar.set_postfix_str(
            f"runs: {finished} finished, {len(self.children)} running, {waiting} waiting, {len(self.failed)} failed"
        )

    def _epochs_done(self, run: Run) -> int:
        if run.is_finished:
            return run.settings.epochs
        log = self._log(run)
        epochs = _EPOCH.findall(log.read_bytes()) if log.is_file() else []
        return int(epochs[-1]) if epochs else 0

    def _log(self, run: Run) -> Path:
        return self.folder / f"{run.name}.log"

    def _check_nothing_runs(self) -> None:
        """A child holds the lock of its log for as long as it lives, even if this process was killed."""
        for run in self.runs:
            if self._log(run).is_file():
                with self._log(run).open("ab") as log:
                    if not _lock(log):
                        raise ValueError(
                            f"{run.name} still runs, from an earlier start of this study or another one. Wait for its "
                            f"end or stop it; its log is {self._log(run)}"
                        )

    @contextlib.contextmanager
    def _end_children(self) -> Iterator[None]:
        """End all children when this process is interrupted or asked to end; their checkpoints stay."""

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
            for child in self.children:
                _signal_group(child.process, signal.SIGTERM)
            for child in self.children:
                end = time.monotonic() + _END_SECONDS
                while child.poll() is None and time.monotonic() < end:
                    time.sleep(0.1)
                if child.poll() is None:
                    _signal_group(child.process, getattr(signal, "SIGKILL", signal.SIGTERM))


def default_parallel(device: str) -> int:
    """One training for each GPU, or for every four cores of a CPU."""
    return len(visible_gpus()) if device == "cuda" else max(1, (os.cpu_count() or 1) // 4)


def visible_gpus() -> list[str]:
    """GPUs as CUDA_VISIBLE_DEVICES names them.

    Raises:
        ValueError: where there is none.
    """
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = given.split(",") if given else [str(index) for index in range(torch.cuda.device_count())]
    if not gpus or not torch.cuda.is_available():
        raise ValueError("This machine has no GPU that torch can use. Add -device cpu.")
    return gpus


def _lock(file: IO[bytes]) -> bool:
    """Lock an open file for this process and the children that inherit it; False where another holds it."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    """To a training and its worker processes."""
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:
            process.terminate()
