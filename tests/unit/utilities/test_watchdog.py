"""What a killed study cannot do itself: end its trainings, and nothing else."""

import importlib.util
import os
import signal
import subprocess
import sys

import pytest

WATCHDOG = importlib.util.find_spec("nnunetv2_hlfd.utilities.watchdog").origin
TRAINING = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-S", "-c", "input()"])
print(flush=True)
time.sleep(60)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no process groups")


@pytest.fixture
def start():
    """Start a training with a worker, in a process group of its own."""
    started = []

    def run():
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", TRAINING],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        process.stdout.readline()  # its worker runs
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.faults("killed processes")
def test_the_watchdog_ends_what_still_runs_with_its_workers_once_the_study_is_gone(start):
    ended, running = start(), start()
    watchdog = subprocess.Popen([sys.executable, "-I", WATCHDOG], stdin=subprocess.PIPE, text=True)
    watchdog.stdin.write(f"{ended.pid}\n{running.pid}\n{ended.pid}\n")
    watchdog.stdin.flush()
    assert running.poll() is None
    watchdog.stdin.close()  # as the system does where the study is killed
    assert watchdog.wait(timeout=60) == 0
    assert running.wait(timeout=60) == -signal.SIGKILL
    assert running.stdout.read() == b""  # at its end only once the worker, which holds it too, is gone
    assert ended.poll() is None  # its group's number may belong to another program now
