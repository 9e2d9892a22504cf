"""One process at a time: real processes, killed ones, disks without space."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from faults import held_by_another_process, run_on_disk

from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.lock import LOCK_FILE, locked, try_lock


@pytest.fixture
def holder(tmp_path):
    with held_by_another_process(tmp_path / "folder") as process:
        yield process


def enter(folder, **options):
    with locked(folder, "this work", **options):
        pass


@pytest.mark.faults("two processes on one target")
def test_the_second_process_is_told_who_is_there_and_enters_after_its_end(holder, tmp_path):
    folder = tmp_path / "folder"
    with pytest.raises(UserError, match=rf"^{folder} is in use by the other work \(process {holder.pid} on .*, since "):
        enter(folder)
    enter(folder, name=".another")
    holder.stdin.close()
    holder.wait()
    enter(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.faults("killed processes")
def test_a_killed_process_locks_nothing_and_its_file_is_removed_by_the_next(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert [file.name for file in (tmp_path / "folder").iterdir()] == [LOCK_FILE]
    enter(tmp_path / "folder")
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.faults("two processes on one target")
def test_whoever_waits_enters_as_soon_as_the_other_has_left(holder, tmp_path):
    threading.Timer(0.3, holder.stdin.close).start()
    enter(tmp_path / "folder", wait_seconds=60)


@pytest.mark.faults("two processes on one target")
def test_of_many_processes_one_at_a_time_is_inside(tmp_path):
    """Each adds to a number that all read, wait, and write."""
    code = """
import sys, time
from pathlib import Path
from nnunetv2_hlfd.utilities.lock import locked
for _ in range(20):
    with locked(Path(sys.argv[1]), "adding", wait_seconds=60):
        number = Path(sys.argv[1], "number")
        value = int(number.read_text())
        time.sleep(0.001)
        number.write_text(str(value + 1))
"""
    (tmp_path / "number").write_text("0")
    children = [subprocess.Popen([sys.executable, "-c", code, tmp_path]) for _ in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "60"


@pytest.mark.faults("two processes on one target")
@pytest.mark.skipif(sys.platform == "win32", reason="fork is POSIX")
def test_a_forked_child_does_not_keep_the_lock_that_its_parent_has_let_go(tmp_path):
    with locked(tmp_path, "this work"):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        enter(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_an_error_in_the_block_passes_and_lets_go(tmp_path):
    def fail():
        with locked(tmp_path, "this work"):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    enter(tmp_path)


@pytest.mark.faults("full, limited and read-only disks")
def test_a_full_disk_does_not_keep_anybody_out(tmp_path):
    code = f"""
import pathlib
folder = pathlib.Path({str(tmp_path)!r})
from nnunetv2_hlfd.utilities.lock import locked
with (folder / "fill").open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
with locked(folder, "this work"):
    print("inside", end="")
"""
    process = run_on_disk(tmp_path, "size=64k", [sys.executable, "-c", code])
    assert process.stdout == "inside", process.stderr


@pytest.mark.faults("full, limited and read-only disks")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"^Could not write {tmp_path}/file/{LOCK_FILE}: "):
        enter(tmp_path / "file")


def test_a_file_is_locked_for_others_only(tmp_path):
    with (tmp_path / "log").open("wb") as first, (tmp_path / "log").open("wb") as second:
        assert try_lock(first)
        assert try_lock(first)
        assert not try_lock(second)
