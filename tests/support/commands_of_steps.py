"""Commands of `utilities.steps` in processes that start in no time."""

import sys
import tempfile
from pathlib import Path

from processes import Process, run_script

from nnunetv2_hlfd.utilities.child_process import executable
from nnunetv2_hlfd.utilities.steps import StepFailedError


def run_in_forks(workspace, step, command, _watchdog):
    """In place of `steps._run`: the same script with the same arguments and variables, forked and not spawned."""
    script, arguments = Path(executable(command[0])), command[1:]
    if command[0] == "python":
        script, *arguments = arguments
    with tempfile.TemporaryDirectory() as folder:
        environment = {**workspace.environment, **step.environment, "PYTHONPATH": ":".join(sys.path)}
        with Process(run_script, (script, arguments), environment, Path(folder)) as process:
            code = process.wait()
        log = workspace.log(step)
        log.write_text(process.stdout + process.stderr)
    if code != 0:
        raise StepFailedError(f"Step '{step.title}' failed with exit code {code}: {log.read_text()[-3000:]}")
