"""Workers end with the process that has started them."""

import signal
import subprocess
import sys
import time

import pytest
from faults import descendants, is_alive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

POOL = """
import time
from pathlib import Path
from nnunetv2_hlfd.utilities.orphans import process_pool
from nnunetv2_hlfd.deploy.runtime.signals import signals_interrupt
if __name__ == "__main__":
    with signals_interrupt(), process_pool(2) as pool:
        results = pool.map(time.sleep, [SECONDS] * 1000)
        Path(__file__).with_name("ready").touch()  # an interrupt while a future is handed over is not Python's strength
        list(results)
"""
FORK = """
import os, time
from pathlib import Path
from nnunetv2_hlfd.utilities.orphans import end_forks_with_this_process
end_forks_with_this_process()
end_forks_with_this_process()
for _ in range(2):
    if os.fork() == 0 and os.fork() == 0:
        break
Path(__file__).with_name("ready").touch()
time.sleep(60)
"""


@pytest.mark.faults("killed processes")
@pytest.mark.parametrize(
    ("code", "number", "workers"),
    [
        pytest.param(FORK, signal.SIGKILL, 4, id="forks"),
        pytest.param(POOL.replace("SECONDS", "60"), signal.SIGKILL, 3, id="pool"),  # and what tracks their resources
        pytest.param(POOL.replace("SECONDS", "0.3"), signal.SIGTERM, 3, id="pool that is asked"),
    ],
)
def test_workers_end_with_their_process(tmp_path, code, number, workers):
    (tmp_path / "script.py").write_text(code)
    with subprocess.Popen([sys.executable, tmp_path / "script.py"], stderr=subprocess.DEVNULL) as process:
        while len(children := descendants(process.pid)) < workers or not (tmp_path / "ready").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
    end = time.monotonic() + 10
    while any(map(is_alive, children)):
        assert time.monotonic() < end
        time.sleep(0.05)
