"""Long work in a folder as a series of steps: each logged, timed and remembered, so that the same command goes on."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.deploy.runtime.hidden_folder import is_leftover
from nnunetv2_hlfd.deploy.runtime.signals import signals_interrupt
from nnunetv2_hlfd.utilities.atomic import write_json
from nnunetv2_hlfd.utilities.child_process import executable, last_lines
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json, refuse_damage
from nnunetv2_hlfd.utilities.lock import locked
from nnunetv2_hlfd.utilities.process_groups import (
    END_SECONDS,
    KILL,
    Watchdog,
    check_nothing_runs,
    lock_log,
    signal_group,
)
from nnunetv2_hlfd.utilities.progress import follow, progress_bar

LOGS = "logs"


class StepFailedError(RuntimeError):
    """A step ended with an error; the message names its log."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        name: of its log file and its entry in the record of finished steps.
        title: for the reader.
        product: what is there once the step is finished.
        command: the command as a user types it, made when the step starts; a function returning nothing has done the
            work itself.
        total: number of epochs or cases to count, if any.
        labels: names of the labels whose pseudo Dice a training prints.
        environment: variables of the command beside those of the workspace.
        succeeded: exit codes of the command that mean that it has done its work.
    """

    name: str
    title: str
    product: Path
    command: Callable[[], Sequence[str] | None]
    total: int | None = None
    labels: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    succeeded: Collection[int] = (0,)


class Workspace:
    """A folder and its record of finished steps, `{work}.json`.

    Args:
        folder: new, or that of an earlier start.
        work: what is made in it, in one word, such as demo.
        made_with: what decides the result. A folder that was made with something else is not gone on with.
        folders: that are to be there.
        environment: all variables of the steps' commands.
        there_before: pattern of the names that a folder may hold before the work is begun.

    Attributes:
        seconds: name of a finished step -> what it took.

    Raises:
        UserError: where the folder holds something else, or was made with something else.
    """

    def __init__(
        self,
        folder: Path,
        work: str,
        made_with: Mapping[str, Any],
        *,
        folders: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        there_before: str = "",
    ) -> None:
        self.folder, self.work = folder, work
        self.made_with = json.loads(json.dumps(made_with))  # as it is read back
        self.environment = dict(os.environ if environment is None else environment)
        self.seconds: dict[str, float] = {}
        self._file = folder / f"{work}.json"
        if folder.exists() and not folder.is_dir():
            raise UserError(f"Expected a folder for the {work}, {folder} is a file. Choose another with -o.")
        if self._file.is_file():
            self._read()
        elif folder.is_dir() and not all(
            fnmatch(file.name, there_before) or is_leftover(file) for file in folder.iterdir()
        ):
            raise UserError(f"{folder} holds something else than this {work}. Choose a new folder with -o.")
        folder.mkdir(parents=True, exist_ok=True)
        self._write()  # first: without it, what a killed start left would be something else
        for name in (*folders, LOGS):
            (folder / name).mkdir(exist_ok=True)

    def _read(self) -> None:
        content = read_json(self._file)
        with refuse_damage(self._file):
            made_with, seconds = content["made_with"], dict(content["seconds"])
        if made_with != self.made_with:
            keys = sorted({*made_with, *self.made_with})
            here, there = (
                {key: made[key] for key in keys if key in made and made_with.get(key) != self.made_with.get(key)}
                for made in (self.made_with, made_with)
            )
            raise UserError(
                f"{self.folder} was made with other choices: {str(there)[:500]} there, {str(here)[:500]} here. Delete "
                f"it, or choose a new folder with -o."
            )
        self.seconds = seconds

    def _write(self) -> None:
        write_json(self._file, {"made_with": self.made_with, "seconds": self.seconds})

    def is_finished(self, step: Step) -> bool:
        """Whether the step ended well before and its product is still there."""
        return step.name in self.seconds and step.product.exists()

    def finish(self, step: Step, seconds: float) -> None:
        """Remember that the step ended well, and how long it took."""
        self.seconds[step.name] = round(seconds, 2)
        self._write()

    def log(self, step: Step) -> Path:
        """Where the output of the step's command is."""
        return self.folder / LOGS / f"{step.name}.log"


def nnunet_environment(folder: Path, kept: Collection[str] = ()) -> dict[str, str]:
    """The variables of commands that work in nnU-Net's three folders below `folder`, whatever is set.

    Args:
        folder: with raw, preprocessed and results.
        kept: nnU-Net's and this package's own variables that count.
    """
    others = {
        name: value for name, value in os.environ.items() if not name.lower().startswith("nnunet_") or name in kept
    }
    return {
        "OMP_WAIT_POLICY": "passive",  # waiting threads that spin slow a busy machine down many times
        **others,
        **{f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")},
        "PYTHONUNBUFFERED": "1",
    }


def run_steps(workspace: Workspace, steps: Sequence[Step]) -> None:
    """Run what is not finished yet.

    Raises:
        StepFailedError: naming the step, its log and the log's last lines.
        UserError: where another process works in the folder, or a step of an earlier start still runs.
    """
    start = time.perf_counter()
    lock = locked(workspace.folder, f"nnUNetv2_hlfd {workspace.work}")
    with lock, signals_interrupt(), Watchdog() as watchdog:
        check_nothing_runs([workspace.log(step) for step in steps])
        for number, step in enumerate(steps, 1):
            head = f"[{number}/{len(steps)}] {step.title}"
            if workspace.is_finished(step):
                print(f"{head}: done before", flush=True)
                continue
            print(f"{head} (elapsed {_clock(time.perf_counter() - start)})", flush=True)
            step_start = time.perf_counter()
            command = step.command()
            if command is not None:
                _run(workspace, step, command, watchdog)
            workspace.finish(step, time.perf_counter() - step_start)


def _run(workspace: Workspace, step: Step, command: Sequence[str], watchdog: Watchdog) -> None:
    """Run a command with its output in the step's log and its progress on the screen."""
    print(f"      $ {' '.join(command)}", flush=True)
    log_file = workspace.log(step)
    with log_file.open("a", encoding="utf-8", buffering=1) as log:
        lock_log(log)
        child = subprocess.Popen(  # noqa: S603 (commands of nnU-Net and of this package)
            [executable(command[0]), *command[1:]],
            env={**workspace.environment, **step.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=(log.fileno(),) if os.name == "posix" else (),  # which keeps the lock
        )
        watchdog.tell(child.pid)
        assert child.stdout is not None
        try:
            with progress_bar(step.total) as bar:
                for line in child.stdout:
                    log.write(line)
                    follow(bar, line, step.labels)
            code = child.wait()
        finally:
            _end(child)
            watchdog.tell(child.pid)
    if code not in step.succeeded:
        raise StepFailedError(
            f"Step '{step.title}' failed with exit code {code}. The last lines of {log_file}:\n\n"
            f"{last_lines(log_file)}\n\nRun the same command again to continue from this step."
        )


def _end(child: "subprocess.Popen[str]") -> None:
    """End a child that still runs, and the workers that it has left behind."""
    if child.poll() is None:
        signal_group(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(END_SECONDS)
    signal_group(child, KILL)
    child.wait()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
