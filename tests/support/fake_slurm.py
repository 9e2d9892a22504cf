"""A Slurm of one machine: its commands as scripts that start real processes and know how they ended.

A job is a folder with its script, `state`, and `pid` of its process group. The commands read nothing but their
arguments, the folder that they lie in, and the environment.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol")
QUEUED = ("PENDING", "RUNNING")


class FakeSlurm:
    """The commands in a folder for PATH, and the jobs as a test sees them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "jobs").mkdir(parents=True)
        for name in COMMANDS:
            command = folder / name
            command.write_text(f"#!{sys.executable} -SE\n" + Path(__file__).read_text())
            command.chmod(0o755)

    def jobs(self) -> dict[str, str]:
        """Number of each job that was ever submitted, in order -> its state."""
        folders = sorted((self.folder / "jobs").iterdir(), key=lambda job: int(job.name))
        return {job.name: _read(job / "state") for job in folders if (job / "state").is_file()}

    def names(self) -> list[str]:
        """Name of each job that was ever submitted, in order."""
        scripts = [(self.folder / "jobs" / number / "script").read_text() for number in self.jobs()]
        return [script.split("#SBATCH --job-name=")[1].split("\n")[0] for script in scripts]

    def kill(self, number: str, state: str) -> None:
        """End a job as Slurm would, without a word to what runs in it."""
        _end(self.folder / "jobs" / number, state)

    def forget(self) -> None:
        """Let the accounting lose all jobs, or be none at all."""
        (self.folder / "no_accounting").touch()

    def close(self) -> None:
        """End what still runs."""
        for number, state in self.jobs().items():
            if state in QUEUED:
                self.kill(number, "CANCELLED")


def _read(file: Path) -> str:
    return file.read_text().strip() if file.is_file() else ""


def _write(file: Path, text: str) -> None:
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_text(text)
    temporary.rename(file)


def _end(job: Path, state: str) -> None:
    _write(job / "state", state)
    with suppress(ProcessLookupError, ValueError):
        os.killpg(int(_read(job / "pid")), signal.SIGKILL)


def sbatch(root: Path, arguments: list[str]) -> None:
    if (root / "refusal").is_file():
        sys.exit(_read(root / "refusal"))
    number = 1
    while True:
        try:
            (job := root / "jobs" / str(number)).mkdir()
            break
        except FileExistsError:
            number += 1
    shutil.copy(arguments[-1], job / "script")
    _write(job / "state", "PENDING")
    _start(job)
    print(f"Submitted batch job {number}")


def _start(job: Path) -> None:
    """Let a process of its own, of which all others of the job are children, run the script and note its end."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    path = str(job.parents[1] / "sbatch")
    subprocess.Popen([path, "--run", str(job)], start_new_session=True, **streams)


def run(job: Path) -> None:
    if (job.parents[1] / "hold").is_file():  # the cluster is busy
        return
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a job has nothing of whoever submits it
    _write(job / "pid", str(os.getpid()))
    _write(job / "state", "RUNNING")
    environment = {**os.environ, "SLURM_JOB_ID": job.name, "SLURM_PROCID": "0", "FAKE_SLURM_JOB": str(job)}
    code = subprocess.run(["bash", str(job / "script")], env=environment, check=False).returncode
    if _read(job / "state") == "RUNNING":
        _write(job / "state", "FAILED" if code else "COMPLETED")


def srun(_root: Path, arguments: list[str]) -> None:
    job = Path(os.environ["FAKE_SLURM_JOB"])
    output = arguments[arguments.index("--output") + 1].replace("%j", job.name).replace("%t", "0")
    command = arguments[next(i for i, text in enumerate(arguments) if Path(text).name.startswith("python")) :]
    log = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    _write(job / "srun", "\n".join(arguments))
    _write(job / "task", str(os.getpid()))
    os.execv(command[0], command)


def sacct(root: Path, arguments: list[str]) -> None:
    print("JobID|State|NodeList")
    if not (root / "no_accounting").is_file():
        for number in (arguments[i + 1] for i, text in enumerate(arguments) if text == "-j"):
            if state := _read(root / "jobs" / number / "state"):
                print(f"{number}|{state}|node")


def squeue(root: Path, _arguments: list[str]) -> None:
    for job in (root / "jobs").iterdir():
        if _read(job / "state") in QUEUED:
            print(job.name)


def scancel(root: Path, arguments: list[str]) -> None:
    if "--signal" in arguments:
        task = int(_read(root / "jobs" / arguments[0] / "task"))
        os.kill(task, getattr(signal, f"SIG{arguments[-1].removeprefix('SIG')}"))
        return
    for number in arguments:
        _end(root / "jobs" / number, "CANCELLED by 1000")


def scontrol(root: Path, arguments: list[str]) -> None:
    """Requeue: end the job's processes, that of the caller too, and start the script again."""
    if (root / "no_requeue").is_file():
        sys.exit("scontrol: error: requeue is disabled")
    job = root / "jobs" / arguments[-1]
    subprocess.Popen([str(root / "sbatch"), "--requeue", str(job)], start_new_session=True)
    time.sleep(60)  # until that ends this process


def requeue(job: Path) -> None:
    time.sleep(0.2)
    _write(job / "requeued", str(int(_read(job / "requeued") or 0) + 1))
    _end(job, "PENDING")
    _start(job)


def _main() -> None:
    root = Path(sys.argv[0]).resolve().parent
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if name == "sbatch" and arguments[0] == "--run":
        run(Path(arguments[1]))
    elif name == "sbatch" and arguments[0] == "--requeue":
        requeue(Path(arguments[1]))
    else:
        {"sbatch": sbatch, "srun": srun, "sacct": sacct, "squeue": squeue, "scancel": scancel, "scontrol": scontrol}[
            name
        ](root, arguments)


if __name__ == "__main__":
    _main()
