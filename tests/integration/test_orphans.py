"""Commands that are ended at work, by a request or a kill, leave no process behind."""

import os
import signal
import sys
import time

import pytest
from faults import descendants, is_alive
from processes import Process

from nnunetv2_hlfd.cli.main import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
DATASET = "Dataset901_Phantom"
SIGNALS = [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]
SECONDS = 15  # that all have to be gone in


def run_main(arguments):
    sys.exit(main(arguments))


def end_at_work(arguments, environment, folder, number, at_work, seconds=SECONDS):
    """Send a signal to a command, and to nothing that it has started, once it is at work; returns its exit code."""
    with Process(run_main, (arguments,), {**os.environ, **environment}, folder) as process:
        while not at_work(descendants(process.pid)):
            assert process.poll() is None, process.stderr
            time.sleep(0.02)
        children = descendants(process.pid)
        os.kill(process.pid, number)
        end = time.monotonic() + seconds
        while process.poll() is None or any(map(is_alive, children)):
            assert time.monotonic() < end, f"{children} live on, {process.stderr}"
            time.sleep(0.05)
        return process.poll()


def code_of(number):
    return -number if number == signal.SIGKILL else 128 + number


@pytest.mark.faults("killed processes")
@pytest.mark.parametrize(
    "number", [pytest.param(each, marks=() if each == signal.SIGKILL else pytest.mark.slow) for each in SIGNALS]
)
def test_training(nnunet, variant, tmp_path, number):
    """With two processes that augment."""
    plans = variant(f"orphans{number:d}", num_epochs=1000, num_iterations_per_epoch=50)
    arguments = ["train", DATASET, "2d", "0", "-tr", "nnUNetTrainerStudent", "-p", plans, "-device", "cpu"]
    model = nnunet / f"results/{DATASET}/nnUNetTrainerStudent__{plans}__2d"

    def at_work(children):
        return len(children) >= 2 and list(model.glob("fold_0/checkpoint_latest.pth"))

    code = end_at_work(arguments, {"nnUNet_n_proc_DA": "2"}, tmp_path, number, at_work)
    assert code == code_of(number)
    assert (list(model.glob(".*.lock")) == []) == (number != signal.SIGKILL)


@pytest.mark.faults("killed processes")
@pytest.mark.parametrize("number", [pytest.param(each, marks=pytest.mark.slow) for each in SIGNALS[:2]])
def test_prediction(teacher_2d, nnunet, tmp_path, number):
    images = tmp_path / "images"
    images.mkdir()
    source = next((nnunet / "raw" / DATASET / "imagesTr").glob("*.nii.gz"))
    for index in range(500):
        (images / f"case{index:03d}_0000.nii.gz").symlink_to(source)
    output = tmp_path / "out"
    arguments = ["predict", "-m", str(teacher_2d.parent), "-i", str(images), "-o", str(output), "-device", "cpu"]
    code = end_at_work(arguments, {}, tmp_path, number, lambda _: len(list(output.glob("*.nii.gz"))) > 2)
    assert code == code_of(number)
    assert not list(output.glob(".*"))
