"""Commands of `utilities.steps` in processes that start in no time, and a kill in the middle of a step."""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import processes
from processes import Process, run_script

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.deploy import quantize
from nnunetv2_hlfd.utilities import atomic, steps
from nnunetv2_hlfd.utilities.child_process import executable
from nnunetv2_hlfd.utilities.steps import StepFailedError

CALIBRATION_PATCHES = 4


def run_in_forks(workspace, step, command, _watchdog):
    """In place of `steps._run`: the same script with the same arguments and variables, forked and not spawned."""
    with tempfile.TemporaryDirectory() as folder:
        with _fork(workspace, step, command, folder) as process:
            code = process.wait()
        log = workspace.log(step)
        log.write_text(process.stdout + process.stderr)
    if code not in step.succeeded:
        raise StepFailedError(f"Step '{step.title}' failed with exit code {code}: {log.read_text()[-3000:]}")


def _fork(workspace, step, command, folder):
    script, arguments = Path(executable(command[0])), command[1:]
    if command[0] == "python":
        script, *arguments = arguments
    environment = {**workspace.environment, **step.environment, "PYTHONPATH": ":".join(sys.path)}
    return Process(run_script, (script, arguments), environment, Path(folder))


def main_killed(arguments: Sequence[str], name: str, moment: float, files: str = "*") -> None:
    """Run this package's command in a process that dies in one of its steps; for `Process`.

    Args:
        arguments: of the command.
        name: of the step.
        moment: inf: what the step makes is there, and not yet known to be; else, in a step that is a command, seconds
            after its start, and in the others at the second file that the step would put into its place.
        files: pattern of the names of such files.
    """
    processes.CONTEXT = multiprocessing.get_context("fork")
    quantize.CALIBRATION_PATCHES = CALIBRATION_PATCHES
    current, published = [""], []
    is_finished, finish, publish = steps.Workspace.is_finished, steps.Workspace.finish, atomic.publish

    def enter(workspace, step):
        current[0] = step.name
        return is_finished(workspace, step)

    def die_at_the_end(workspace, step, seconds):
        if step.name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        finish(workspace, step, seconds)

    def die_at_a_file(temporary, target):
        if current[0] == name and target.match(files):
            published.append(target)
            if len(published) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        publish(temporary, target)

    def die_in_the_command(workspace, step, command, watchdog):
        if step.name != name:
            return run_in_forks(workspace, step, command, watchdog)
        with tempfile.TemporaryDirectory() as folder, _fork(workspace, step, command, folder) as process:
            time.sleep(moment)
            process.kill()
            os.kill(os.getpid(), signal.SIGKILL)

    within = moment < float("inf")
    steps.Workspace.is_finished, steps.Workspace.finish = enter, die_at_the_end
    steps._run = die_in_the_command if within else run_in_forks
    atomic.publish = die_at_a_file if within else publish
    sys.exit(main(list(arguments)))
