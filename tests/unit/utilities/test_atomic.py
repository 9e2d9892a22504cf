"""Files are written whole or not at all, under the faults of real disks and processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults import run_on_disk, run_python

from nnunetv2_hlfd.utilities.atomic import (
    atomic_path,
    partial_folder,
    publish,
    write_bytes,
    write_json,
    write_text,
)
from nnunetv2_hlfd.utilities.errors import UserError

WRITE_OVER = """
import sys
from pathlib import Path
from nnunetv2_hlfd.utilities.atomic import write_bytes
from nnunetv2_hlfd.utilities.errors import UserError
target = Path(sys.argv[1])
write_bytes(target, b"old")
try:
    write_bytes(target, bytes(2**20))
except UserError as error:
    print(error)
print(target.read_bytes()[:10], [file.name for file in target.parent.iterdir()])
"""


def names(folder):
    return sorted(each.name for each in folder.iterdir())


@pytest.fixture
def target(tmp_path):
    file = tmp_path / "case.1.nii.gz"
    file.write_text("old")
    return file


# What is written


def test_bytes_texts_and_json_are_written_as_they_are(tmp_path):
    write_bytes(tmp_path / "a", b"\x00\r\n")
    write_text(tmp_path / "b", "±\r\n\n")
    write_json(tmp_path / "c", {"b": [1, None], "a": 0.5})
    assert (tmp_path / "a").read_bytes() == b"\x00\r\n"
    assert (tmp_path / "b").read_bytes() == "±\r\n\n".encode()
    assert json.loads((tmp_path / "c").read_text()) == {"b": [1, None], "a": 0.5}
    assert (tmp_path / "c").read_text().startswith('{\n    "b"')
    assert names(tmp_path) == ["a", "b", "c"]


def test_the_target_changes_at_the_end_of_the_block_and_keeps_its_ending_until_then(target):
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert temporary.name == target.name
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names(target.parent) == [target.name]


def test_a_file_has_the_rights_that_others_get_here(tmp_path):
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_name_as_long_as_a_file_system_allows_can_be_written(tmp_path):
    write_text(tmp_path / ("n" * 250 + ".json"), "new")
    assert (tmp_path / ("n" * 250 + ".json")).read_text() == "new"


def test_a_folder_is_published_whole_and_never_over_another(tmp_path):
    target = tmp_path / "export"
    with partial_folder(target) as folder:
        (folder / "made" / "fold_0").mkdir(parents=True)
        (folder / "made" / "fold_0" / "network").write_text("x")
        (folder / "scratch").write_text("not published")
        publish(folder / "made", target)
    assert names(tmp_path) == ["export"]
    with pytest.raises(UserError, match=f"^Could not write {target}: "), partial_folder(target) as folder:  # noqa: PT012
        (folder / "made").mkdir()
        publish(folder / "made", target)
    assert (target / "fold_0" / "network").read_text() == "x"
    assert names(tmp_path) == ["export"]


# Errors


def write_half(target, error):
    with atomic_path(target) as temporary:
        temporary.write_text("ne")
        raise error


@pytest.mark.faults("errors in the middle of the work")
@pytest.mark.parametrize("error", [KeyError("a mistake"), KeyboardInterrupt(), UserError("the user's")])
def test_an_error_in_the_block_passes_and_leaves_the_old_file(target, error):
    with pytest.raises(type(error)) as caught:
        write_half(target, error)
    assert caught.value is error
    assert target.read_text() == "old"
    assert names(target.parent) == [target.name]


@pytest.mark.faults("errors in the middle of the work")
def test_an_error_of_the_disk_names_the_target_and_says_what_is_left(target):
    with pytest.raises(UserError) as caught:
        write_half(target, OSError(28, "No space left on device"))
    assert str(caught.value) == (
        f"Could not write {target}: [Errno 28] No space left on device. The previous file, if any, is intact."
    )
    assert target.read_text() == "old"
    assert names(target.parent) == [target.name]


@pytest.mark.faults("errors in the middle of the work")
def test_what_a_library_raises_in_place_of_oserror_is_named(target):
    with pytest.raises(UserError, match=f"^Could not write {target}: failed"), atomic_path(target, (RuntimeError,)):
        raise RuntimeError("failed")
    with pytest.raises(RuntimeError, match="failed"), atomic_path(target):
        raise RuntimeError("failed")


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(UserError, match="No such file or directory"), atomic_path(tmp_path / "file"):
        pass
    assert names(tmp_path) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=f"^Could not write {tmp_path}/no/file: .*No such file or directory"):
        write_text(tmp_path / "no" / "file", "")


def test_a_folder_in_the_targets_place_stays(tmp_path):
    (tmp_path / "target" / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match=f"^Could not write {tmp_path}/target: "):
        write_text(tmp_path / "target", "new")
    assert names(tmp_path / "target") == ["inside"]


@pytest.mark.faults("full, limited and read-only disks")
def test_a_file_system_that_does_not_flush_folders_is_no_error(target, monkeypatch):
    flush = os.fsync

    def refuse_folders(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            raise OSError(22, "Invalid argument")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    write_text(target, "new")
    assert target.read_text() == "new"


# Disks


def check_old_file_is_left(process, target, reason):
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[0].startswith(f"Could not write {target}: ")
    assert reason in lines[0]
    assert lines[0].endswith("The previous file, if any, is intact.")
    assert lines[1:] == [f"b'old' {[target.name]}"]


@pytest.mark.faults("full, limited and read-only disks")
def test_a_file_that_may_not_grow_leaves_the_old_one(tmp_path):
    target = tmp_path / "file.bin"
    check_old_file_is_left(run_python(WRITE_OVER, target, file_bytes=2**16), target, "File too large")


@pytest.mark.faults("full, limited and read-only disks")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    target = tmp_path / "file.bin"
    process = run_on_disk(tmp_path, "size=256k", [sys.executable, "-c", WRITE_OVER, target])
    check_old_file_is_left(process, target, "No space left on device")


@pytest.mark.faults("full, limited and read-only disks")
def test_a_disk_that_is_read_only_is_named(tmp_path):
    target = tmp_path / "file.bin"
    process = run_on_disk(tmp_path, "ro", [sys.executable, "-c", WRITE_OVER, target])
    assert f"UserError: Could not write {target}: [Errno 30] Read-only file system" in process.stderr


@pytest.mark.faults("full, limited and read-only disks")
def test_of_files_that_belong_together_a_full_disk_leaves_all_old_ones(tmp_path):
    code = """
import sys
from pathlib import Path
from nnunetv2_hlfd.utilities.atomic import write_files
from nnunetv2_hlfd.utilities.errors import UserError
folder = Path(sys.argv[1])
write_files(folder, {"a": b"old", "b": b"old"})
try:
    write_files(folder, {"a": b"new", "b": bytes(2**20)})
except UserError as error:
    print(error)
print({file.name: file.read_bytes() for file in folder.iterdir()} == {"a": b"old", "b": b"old"})
write_files(folder, {"b": b"new", "a": b"new"})
print({file.name: file.read_bytes() for file in folder.iterdir()} == {"a": b"new", "b": b"new"})
"""
    process = run_on_disk(tmp_path, "size=256k", [sys.executable, "-c", code, tmp_path])
    assert process.returncode == 0, process.stderr
    error, *as_expected = process.stdout.splitlines()
    assert error.startswith(f"Could not write {tmp_path}/b: [Errno 28] No space left on device")
    assert as_expected == ["True", "True"]


# Processes


def started(code, *arguments):
    """A child that has printed its first line."""
    child = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "writing\n"
    return child


@pytest.mark.faults("killed processes")
def test_a_kill_in_the_middle_leaves_the_old_file_and_the_next_write_removes_the_rest(target):
    code = """
import sys, time
from pathlib import Path
from nnunetv2_hlfd.utilities.atomic import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("ne")
    print("writing", flush=True)
    time.sleep(60)
"""
    child = started(code, target)
    try:
        write_text(target.with_name("another"), "")
        assert len(names(target.parent)) == 3, "what a process that lives is writing stays"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert target.read_text() == "old"
    assert len(names(target.parent)) == 3
    write_text(target, "new")
    assert target.read_text() == "new"
    assert names(target.parent) == ["another", target.name]


def test_what_another_machine_has_left_is_removed_after_a_day(target):
    leftovers = [target.parent / f".partial-00000000-1-{age}" for age in ("new", "old")]
    for folder in leftovers:
        folder.mkdir()
    os.utime(leftovers[1], (0, 0))
    write_text(target, "new")
    assert names(target.parent) == [leftovers[0].name, target.name]


@pytest.mark.faults("two processes on one target")
def test_what_another_container_of_this_machine_is_writing_stays(target):
    """Each counts its processes on its own, so that those of the other one seem to have ended."""
    inside = ["unshare", "--pid", "--fork"]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs a new namespace for processes, as root on Linux has it")
    code = """
import sys
from pathlib import Path
from nnunetv2_hlfd.utilities.atomic import write_text
write_text(Path(sys.argv[1]), "whole")
"""
    another = target.with_name("another")
    with atomic_path(target) as temporary:
        subprocess.run([*inside, sys.executable, "-c", code, another], check=True, timeout=60)
        temporary.write_text("new")
    assert (another.read_text(), target.read_text()) == ("whole", "new")


@pytest.mark.faults("two processes on one target")
def test_two_processes_that_write_the_same_file_leave_a_whole_one_at_any_moment(target):
    code = """
import sys
from pathlib import Path
from nnunetv2_hlfd.utilities.atomic import write_text
print("writing", flush=True)
for _ in range(200):
    write_text(Path(sys.argv[1]), sys.argv[2] * 50_000)
"""
    whole = {"old", "a" * 50_000, "b" * 50_000}
    children = [started(code, target, letter) for letter in "ab"]
    seen = set()
    while any(child.poll() is None for child in children):
        seen.add(target.read_text())
    for child in children:
        child.stdout.close()
        assert child.returncode == 0
    assert seen <= whole
    assert len(seen) > 1
    assert target.read_text() in whole - {"old"}
    assert names(target.parent) == [target.name]
