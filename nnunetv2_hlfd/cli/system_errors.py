"""Errors of the system that the user can mend, and a reader of the output that is gone."""

import errno
import os
import select
import sys

from nnunetv2_hlfd.deploy.runtime.errors import last_line

BROKEN_PIPE = 141  # exit code of a program that SIGPIPE ends
_STANDARD_OUTPUT = 1

_MENDED_BY = {
    errno.EACCES: "Choose a place that you may read and write.",
    errno.EPERM: "Choose a place that you may read and write.",
    errno.EROFS: "Choose a place that you may write.",
    errno.ENOSPC: "Free some space, or choose another disk.",
    errno.EDQUOT: "Free some space, or choose another disk.",
    errno.EFBIG: "Choose another disk, or raise the limit: ulimit -f",
    errno.EMFILE: "Use fewer processes and threads, or raise the limit: ulimit -n",
    errno.ENFILE: "Close other programs, or ask for a higher limit of the system.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ENOTDIR: "A part of this path is a file, expected a folder.",
    errno.EISDIR: "This is a folder, expected a file.",
    errno.EEXIST: "This is there already. Choose another name.",
    errno.EIO: "The disk or its network fails.",
    errno.ESTALE: "The disk or its network fails.",
}


# What libraries say in errors of their own, such as torch where it shares memory.
_TOLD_BY_LIBRARIES = (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EIO)
_NO_TEMPORARY_FOLDER = ("No usable temporary directory", "Matplotlib requires access to a writable cache directory")


def describe(error: OSError | RuntimeError) -> str | None:
    """Say what is wrong with the user's disk or rights, where, and what mends it; None for another kind of error."""
    if isinstance(error, RuntimeError):
        told = [number for number in _TOLD_BY_LIBRARIES if os.strerror(number) in str(error)]
        return f"{last_line(error)}. {_MENDED_BY[told[0]]}" if told else None
    if any(words in str(error) for words in _NO_TEMPORARY_FOLDER):
        return f"{error.strerror or error}. Name a folder that may be written in TMPDIR."
    mended_by = _MENDED_BY.get(error.errno or 0)
    if mended_by is None:
        return None
    place = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
    return f"{error.strerror or error}{place}. {mended_by}"


def flush_output() -> None:
    """Write what was printed, while an error of it still has somebody to handle it."""
    if sys.stdout is not None:  # it was closed before the start
        sys.stdout.flush()


def drop_output() -> None:
    """Print nowhere from now on, if the standard output cannot be written: Python would complain at its end."""
    try:
        flush_output()
    except OSError:
        _print_nowhere()


def stop_printing() -> bool:
    """Stop printing, and return True, where nobody reads the standard output any more, as after `| head`.

    A broken pipe may also be that of a child process, which is a fault.
    """
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(_STANDARD_OUTPUT, select.POLLERR)
    if not poll.poll(0):
        return False
    _print_nowhere()
    return True


def _print_nowhere() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STANDARD_OUTPUT)
