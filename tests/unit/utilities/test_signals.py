"""Requests to end are the same as Ctrl-C, but where they are ignored."""

import os
import signal
import subprocess
import sys
import time

import pytest

from nnunetv2_hlfd.utilities.signals import InterruptedBySignalError, signals_interrupt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_request_to_end_cleans_up_like_ctrl_c(number, code):
    cleaned = []

    def work():
        with signals_interrupt():
            try:
                os.kill(os.getpid(), number)
                time.sleep(60)
            finally:
                cleaned.append(True)

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert isinstance(caught.value, InterruptedBySignalError)
    assert caught.value.exit_code == code
    assert cleaned
    assert signal.getsignal(number) is signal.SIG_DFL


def test_an_ignored_signal_stays_ignored():
    code = """
import os, signal
from nnunetv2_hlfd.utilities.signals import signals_interrupt
with signals_interrupt():
    os.kill(os.getpid(), signal.SIGHUP)
    print("goes on", end="")
"""
    command = ["nohup", sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "goes on"
