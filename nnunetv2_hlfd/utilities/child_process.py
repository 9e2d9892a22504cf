"""Commands of nnU-Net and of this package as child processes."""

import shutil
import sys
from pathlib import Path

from nnunetv2_hlfd.utilities.errors import UserError

_TAIL_LINES = 25


def executable(name: str) -> str:
    """Find a command beside this Python, where pip installed it, else anywhere on the PATH.

    Raises:
        UserError: where there is none.
    """
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise UserError(
            f"Expected the command {name} beside {sys.executable} or on the PATH. Install nnunetv2_hlfd again in "
            f"this environment."
        )
    return found


def last_lines(log: Path) -> str:
    """Return the end of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:])
