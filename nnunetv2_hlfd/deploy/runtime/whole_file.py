"""Writing a file whole or not at all."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError, last_line

_PREFIX = ".partial-"
_ABANDONED_SECONDS = 3600  # no segmentation takes as long to write


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Hand out a temporary path with the file's name; what is written there becomes the file at the block's end.

    Files that were written beside it, such as the voxels of an mhd file, are moved before it.

    The file is at any moment the previous one or the new one. The temporary path lies in a hidden folder of its own
    beside it, so no two processes share it; what processes that were killed have left there is removed after an hour.

    Raises:
        UserError: in place of any error in the block, naming the file.
    """
    try:
        for leftover in path.parent.glob(f"{_PREFIX}*"):
            if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=_PREFIX))
        try:
            temporary = folder / path.name
            yield temporary
            for part in sorted(folder.iterdir(), key=lambda part: part == temporary):
                with part.open("r+b") as file:
                    os.fsync(file.fileno())
                part.replace(path.with_name(part.name))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except Exception as error:  # the libraries that write have kinds of their own
        raise UserError(f"could not write {path}: {last_line(error)}. The previous file, if any, is intact.") from error
