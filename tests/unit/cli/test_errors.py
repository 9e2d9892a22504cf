"""How each kind of error ends the command line: a mistake, a disk, Ctrl-C, a closed pipe, a fault of the program."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import run_on_disk

from nnunetv2_hlfd.cli import main as main_module
from nnunetv2_hlfd.cli.main import SUBCOMMANDS, main
from nnunetv2_hlfd.cli.subcommand import Subcommand
from nnunetv2_hlfd.cli.system_errors import describe
from nnunetv2_hlfd.deploy.runtime.errors import UserError as RuntimeUserError
from nnunetv2_hlfd.utilities.errors import UserError

PROGRAM = [sys.executable, "-m", "nnunetv2_hlfd.cli.main"]


@pytest.fixture
def run(monkeypatch):
    """Run a subcommand that does what it is given."""

    def run_work(work, **more):
        subcommand = Subcommand(help="", description="", add_arguments=lambda _: None, run=lambda _: work(), **more)
        monkeypatch.setattr(main_module, "SUBCOMMANDS", {"work": subcommand})
        return main(["work"])

    return run_work


def fails(error):
    def work():
        raise error

    return work


# What a user can mend


@pytest.mark.parametrize("kind", [UserError, RuntimeUserError])
def test_a_users_mistake_ends_with_one_message_and_exit_code_2(run, capsys, kind):
    assert run(fails(kind("Expected a, got b."))) == 2
    assert capsys.readouterr() == ("", "nnUNetv2_hlfd work: Expected a, got b.\n")


def open_below_a_file(folder):
    (folder / "file").touch()
    (folder / "file" / "below").open("w")


SYSTEM_ERRORS = {
    "a folder below a file": (open_below_a_file, "Not a directory: {}/file/below. A part of this path is a file"),
    "a name of 300 letters": (lambda folder: (folder / ("n" * 300)).open("w"), "File name too long: {}/nnn"),
    "a folder as a file": (lambda folder: folder.open("w"), "Is a directory: {}. This is a folder"),
    "a folder that is there": (lambda folder: folder.mkdir(), "File exists: {}. This is there already."),
}


@pytest.mark.faults("full, limited and read-only disks")
@pytest.mark.parametrize("case", SYSTEM_ERRORS)
def test_an_error_of_the_disk_ends_with_its_path_and_what_mends_it(run, capsys, tmp_path, case):
    work, message = SYSTEM_ERRORS[case]
    assert run(lambda: work(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.startswith("nnUNetv2_hlfd work: " + message.format(tmp_path))
    assert error.count("\n") == 1


def test_rights_disks_and_limits_are_the_users_and_other_errors_are_not():
    for number in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EMFILE", "ENFILE", "EFBIG"):
        code = getattr(errno, number)
        assert describe(OSError(code, os.strerror(code), "/x/y")).startswith(f"{os.strerror(code)}: /x/y. ")
        assert describe(OSError(code, os.strerror(code))).startswith(f"{os.strerror(code)}. ")
    for error in (
        OSError("words"),
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
        ConnectionResetError(104, ""),
    ):
        assert describe(error) is None


@pytest.mark.faults("broken pipes, signals, limits and rights")
def test_too_many_open_files_are_named(tmp_path):
    code = """
import resource, sys
from nnunetv2_hlfd.cli import main as module
from nnunetv2_hlfd.cli.subcommand import Subcommand
def open_all(_options):
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    return [open("/dev/null") for _ in range(20)]
module.SUBCOMMANDS = {"work": Subcommand(help="", description="", add_arguments=lambda _: None, run=open_all)}
sys.exit(module.main(["work"]))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr.startswith("nnUNetv2_hlfd work: Too many open files: /dev/null. Use fewer processes")


@pytest.mark.faults("full, limited and read-only disks")
def test_a_disk_that_may_not_be_written_is_named_by_a_real_subcommand(tmp_path):
    process = run_on_disk(tmp_path, "ro", [*PROGRAM, "demo", "-o", tmp_path / "demo", "-device", "cpu"])
    assert process.returncode == 2
    message = f"Read-only file system: {tmp_path}/demo. Choose a place that you may write.\n"
    assert process.stderr == f"nnUNetv2_hlfd demo: {message}"


@pytest.mark.faults("full, limited and read-only disks")
def test_a_full_disk_under_the_output_is_said_in_one_line():
    """As after > LOG."""
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [*PROGRAM, "trainers_path"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert process.returncode == 2
    message = "No space left on device. Free some space, or choose another disk.\n"
    assert process.stderr == f"nnUNetv2_hlfd trainers_path: {message}"


@pytest.mark.faults("full, limited and read-only disks")
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("unable to open shared memory object </torch_1>: Too many open files (24)"), "ulimit -n"),
        (RuntimeError("in a source, line 5\n[enforce fail] No space left on device"), "Free some space"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp', '/x']"), "in TMPDIR."),
        (OSError("Matplotlib requires access to a writable cache directory, but the default"), "in TMPDIR."),
    ],
)
def test_what_libraries_say_of_a_disk_is_a_message(run, capsys, error, message):
    assert run(fails(error)) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert message in printed


# What is no fault


@pytest.mark.faults("broken pipes, signals, limits and rights")
def test_ctrl_c_ends_with_a_word_and_exit_code_130(run, capsys):
    assert run(fails(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "nnUNetv2_hlfd work: interrupted.\n"
    assert run(fails(KeyboardInterrupt()), interrupted="interrupted. Go on.") == 130
    assert capsys.readouterr().err == "nnUNetv2_hlfd work: interrupted. Go on.\n"


@pytest.mark.parametrize("name", ["convert", "study", "demo"])
def test_what_goes_on_by_itself_says_so_after_ctrl_c(name):
    assert SUBCOMMANDS[name].interrupted == "interrupted. Run the same command again to continue."


@pytest.mark.faults("broken pipes, signals, limits and rights")
@pytest.mark.parametrize("buffering", ["", "1"])
@pytest.mark.parametrize("arguments", [["trainers_path"], ["--help"], ["plan", "--help"]], ids=" ".join)
def test_a_reader_that_is_gone_ends_the_command_without_a_word(buffering, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [*PROGRAM, *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": buffering},
        check=False,
    )
    os.close(writing)
    assert process.stderr == b""
    # argparse takes no notice where it writes by itself: unbuffered, or more than the buffer holds
    assert process.returncode in ((0, 141) if "--help" in arguments else (141,))


# What is a fault of the program


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a wrong shape"),
        KeyError("x"),
        RuntimeError("x"),
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),  # that of a child process: somebody reads our output
    ],
)
def test_any_other_error_keeps_its_traceback(run, error):
    with pytest.raises(type(error)) as caught:
        run(fails(error))
    assert caught.value is error
