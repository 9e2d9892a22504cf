"""Requests to end are the same as Ctrl-C, but where they are ignored."""

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")


@pytest.mark.faults("broken pipes, signals, limits and rights")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_request_to_end_cleans_up_like_ctrl_c(number, code):
    """In a process of its own: a test may run beside a main thread."""
    script = f"""
import os, signal, time
from nnunetv2_hlfd.deploy.runtime.signals import InterruptedBySignalError, signals_interrupt
try:
    with signals_interrupt():
        try:
            os.kill(os.getpid(), {int(number)})
            time.sleep(60)
        finally:
            print("cleaned")
except InterruptedBySignalError as error:
    print(isinstance(error, KeyboardInterrupt), error.exit_code, signal.getsignal({int(number)}) is signal.SIG_DFL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cleaned", "True", str(code), "True"]


@pytest.mark.faults("broken pipes, signals, limits and rights")
def test_an_ignored_signal_stays_ignored():
    code = """
import os, signal
from nnunetv2_hlfd.deploy.runtime.signals import signals_interrupt
with signals_interrupt():
    os.kill(os.getpid(), signal.SIGHUP)
    print("goes on", end="")
"""
    command = ["nohup", sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "goes on"


def test_a_request_to_end_waits_for_the_end_of_a_block():
    code = """
import os, signal, time
from nnunetv2_hlfd.deploy.runtime.signals import signals_interrupt, signals_wait
try:
    with signals_interrupt():
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                with signals_wait():
                    os.kill(os.getpid(), number)
                    print("whole")
                time.sleep(60)
            except KeyboardInterrupt:
                print("interrupted")
finally:
    print("ended")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["whole", "interrupted", "whole", "interrupted", "ended"]


@pytest.mark.faults("broken pipes, signals, limits and rights")
def test_a_forked_worker_ends_at_once_whatever_it_waits_for():
    """A handler of Python is not run while a worker waits for the lock of its tasks, as it is after a fork."""
    code = """
import multiprocessing, signal, time
from nnunetv2_hlfd.deploy.runtime.signals import signals_interrupt
handlers = multiprocessing.get_context("fork").SimpleQueue()
def work():
    handlers.put([signal.getsignal(number) is signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGHUP)])
    time.sleep(60)
with signals_interrupt():
    worker = multiprocessing.get_context("fork").Process(target=work)
    worker.start()
    print(handlers.get(), signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
    worker.terminate()
    worker.join(10)
print(worker.exitcode)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["[True, True] False", f"{-signal.SIGTERM}"]
