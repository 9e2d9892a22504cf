"""Processes that start in no time: forked from a server that has imported torch and nnU-Net, which takes seconds.

nnU-Net spawns a pool for every validation and prediction, and its commands are processes too. `fork_what_is_spawned`
makes all of them forks of one server of `multiprocessing`. The server knows nothing of this package, nor of the tests,
and what nnU-Net spawns has the environment in which the server was started: its pools read no variables. What such a
process starts itself is a fork of it. Where there is no fork (Windows) they are spawned, as nnU-Net does it.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
CONTEXT = multiprocessing.get_context(METHOD)
PRELOADED = (
    "pytest",
    "nnunetv2.run.run_training",
    "nnunetv2.inference.predict_from_raw_data",
    "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints",
    "nnunetv2.training.nnUNetTrainer.primus.primus_trainers",
)


def fork_what_is_spawned() -> None:
    """Give the server's context to whoever asks `multiprocessing` for that of spawned processes."""
    CONTEXT.set_forkserver_preload(list(PRELOADED))
    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: CONTEXT if method == "spawn" else get_context(method)


def fork_what_this_process_starts() -> None:
    """A process of the server would start a server of its own, and import everything again for each of its pools."""
    if METHOD == "forkserver":
        fork = multiprocessing.get_context("fork")
        multiprocessing.set_start_method("fork", force=True)
        multiprocessing.get_context = lambda method=None: fork


class Process:
    """A call in a process and a session of its own, which is killed where the block ends before it.

    Args:
        function: of a module that the process finds on its path.
        arguments: its arguments.
        environment: all environment variables of the process.
        folder: for stdout.txt and stderr.txt, made here.
        working_directory: where it works.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Iterable[Any],
        environment: Mapping[str, str],
        folder: Path,
        working_directory: Path | str = ".",
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._outputs = [folder / "stdout.txt", folder / "stderr.txt"]
        call = (function, tuple(arguments), dict(environment), self._outputs, Path(working_directory).absolute())
        self._process = CONTEXT.Process(target=_call, args=call)

    def __enter__(self) -> "Process":
        self._process.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self.poll() is None:
            self.kill()

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.exitcode

    def wait(self) -> int | None:
        """The exit code, once it has ended."""
        self._process.join()
        return self._process.exitcode

    def kill(self) -> None:
        """Kill it with all that it has started."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.join()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def stdout(self) -> str:
        return self._outputs[0].read_text()

    @property
    def stderr(self) -> str:
        return self._outputs[1].read_text()


def _call(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    environment: dict[str, str],
    outputs: list[Path],
    working_directory: Path,
) -> None:
    os.setsid()
    fork_what_this_process_starts()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(working_directory)
    for descriptor, path in enumerate(outputs, start=1):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    function(*arguments)


def run_script(script: Path, arguments: Iterable[str]) -> None:
    """Run a Python script, such as a console script."""
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")


def run_without_this_package(entry_point: str, arguments: Iterable[str]) -> None:
    """Run `module:function` where nothing can be imported but what comes with Python and what pip has installed."""
    standard = [Path(os.__file__).parent, Path(sys.base_prefix)]
    sys.path[:] = [
        each
        for each in sys.path
        if Path(each).name == "site-packages" or any(Path(each).is_relative_to(folder) for folder in standard)
    ]
    try:
        import_module("nnunetv2_hlfd")
    except ModuleNotFoundError:
        module, function = entry_point.split(":")
        sys.argv = [module, *arguments]
        sys.exit(getattr(import_module(module), function)())
    sys.exit("nnunetv2_hlfd can be imported")


def run(*call: Any) -> str:
    """What a `Process` of these arguments prints; it has to end without an error."""
    function, arguments, environment, *working_directory = call
    with tempfile.TemporaryDirectory() as folder:
        with Process(function, arguments, environment, Path(folder), *working_directory) as process:
            code = process.wait()
        assert code == 0, process.stdout[-2000:] + process.stderr[-2000:]
        return process.stdout
