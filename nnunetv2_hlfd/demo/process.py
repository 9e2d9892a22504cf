"""Running the demo's steps: each one a command of nnU-Net's in its own environment, logged, timed and remembered."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.demo.progress import follow, progress_bar
from nnunetv2_hlfd.utilities.atomic import write_json
from nnunetv2_hlfd.utilities.child_process import executable, last_lines
from nnunetv2_hlfd.utilities.errors import UserError

_STATE_FILE = "demo.json"


class StepFailedError(RuntimeError):
    """A step of the demo ended with an error; the message names its log."""


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
    """

    name: str
    title: str
    product: Path
    command: Callable[[], Sequence[str] | None]
    total: int | None = None


class Workspace:
    """The demo's folder and its record of finished steps.

    Raises:
        UserError: where the folder holds something else, or a demo made with other settings.
    """

    def __init__(self, folder: Path, made_with: Mapping[str, Any]) -> None:
        self.folder = folder
        self.made_with = json.loads(json.dumps(made_with))  # as it is read back
        self.seconds: dict[str, float] = {}
        self._file = folder / _STATE_FILE
        if folder.exists() and not folder.is_dir():
            raise UserError(f"Expected a folder for the demo, {folder} is a file. Choose another with -o.")
        if self._file.is_file():
            self._read()
        elif folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder} holds something else than this demo. Choose a new folder with -o.")
        for name in ("raw", "preprocessed", "results", "predictions", "logs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._write()

    def _read(self) -> None:
        content = json.loads(self._file.read_text())
        if content["made_with"] != self.made_with:
            raise UserError(
                f"{self.folder} was made by a demo with other settings or on another device ({content['made_with']}). "
                f"Delete it, or choose a new folder with -o."
            )
        self.seconds = content["seconds"]

    def _write(self) -> None:
        write_json(self._file, {"made_with": self.made_with, "seconds": self.seconds})

    def is_finished(self, step: Step) -> bool:
        """Whether the step ended well before and its product is still there."""
        return step.name in self.seconds and step.product.exists()

    def finish(self, step: Step, seconds: float) -> None:
        """Remember that the step ended well, and how long it took."""
        self.seconds[step.name] = round(seconds, 2)
        self._write()

    def environment(self) -> dict[str, str]:
        """The children's environment: nnU-Net's folders inside the demo, whatever nnUNet_* variables are set."""
        kept = {name: value for name, value in os.environ.items() if not name.lower().startswith("nnunet_")}
        folders = {f"nnUNet_{name}": str(self.folder / name) for name in ("raw", "preprocessed", "results")}
        return {
            "OMP_WAIT_POLICY": "passive",  # waiting threads that spin slow a busy machine down many times
            **kept,
            **folders,
            "nnUNet_compile": "f",
            "nnUNet_def_n_proc": "2",  # each process imports torch; the cases are few and small
            "PYTHONUNBUFFERED": "1",
        }


def run_steps(workspace: Workspace, steps: Sequence[Step]) -> None:
    """Run what is not finished yet.

    Raises:
        StepFailedError: naming the step, its log and the log's last lines.
    """
    start = time.perf_counter()
    for number, step in enumerate(steps, 1):
        head = f"[{number}/{len(steps)}] {step.title}"
        if workspace.is_finished(step):
            print(f"{head}: done before", flush=True)
            continue
        print(f"{head} (elapsed {_clock(time.perf_counter() - start)})", flush=True)
        step_start = time.perf_counter()
        command = step.command()
        if command is not None:
            _run(workspace, step, command)
        workspace.finish(step, time.perf_counter() - step_start)


def _run(workspace: Workspace, step: Step, command: Sequence[str]) -> None:
    """Run a command with its output in the step's log and its progress on the screen."""
    print(f"      $ {' '.join(command)}", flush=True)
    log_file = workspace.folder / "logs" / f"{step.name}.log"
    # planning divides by the number of augmentation processes; training without them is reproducible
    workers = "0" if "train" in command else "2"
    child = subprocess.Popen(  # noqa: S603 (the demo's own commands)
        [executable(command[0]), *command[1:]],
        env={**workspace.environment(), "nnUNet_n_proc_DA": workers},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert child.stdout is not None
    try:
        with log_file.open("a", encoding="utf-8", buffering=1) as log, progress_bar(step.total) as bar:
            for line in child.stdout:
                log.write(line)
                follow(bar, line)
        code = child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    if code != 0:
        raise StepFailedError(
            f"Step '{step.title}' failed with exit code {code}. The last lines of {log_file}:\n\n"
            f"{last_lines(log_file)}\n\nRun the same command again to continue from this step."
        )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
