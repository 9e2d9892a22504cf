"""Writing a file whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError, last_line
from .hidden_folder import hidden_folder


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Hand out a temporary path with the file's name; what is written there becomes the file at the block's end.

    Files that were written beside it, such as the voxels of an mhd file, are moved before it.

    The file is at any moment the previous one or the new one. The temporary path lies in a hidden folder of its own
    beside it, so no two processes share it.

    Raises:
        UserError: in place of any error in the block, naming the file.
    """
    try:
        with hidden_folder(path.parent) as folder:
            temporary = folder / path.name
            yield temporary
            for part in sorted(folder.iterdir(), key=lambda part: part == temporary):
                with part.open("r+b") as file:
                    os.fsync(file.fileno())
                part.replace(path.with_name(part.name))
    except Exception as error:  # the libraries that write have kinds of their own
        raise UserError(f"could not write {path}: {last_line(error)}. The previous file, if any, is intact.") from error
