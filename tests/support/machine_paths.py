"""Where files name folders of the machine that has made them, in archives as well."""

import io
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def machine_paths(folder: Path, more: Iterable[Path] = ()) -> list[str]:
    """List FILE: FOLDER for every folder of this machine that a file of `folder` names.

    Args:
        folder: All files in it are looked at, as bytes and as archives.
        more: Folders beside those of Python, the package, the tests and the user.
    """
    places = {Path.home(), Path(sys.prefix), Path(sys.base_prefix), ROOT, *more} - {Path("/"), Path("/usr")}
    needles = [str(place).encode() for place in places] + [b"site-packages"]
    return [
        f"{name}: {needle.decode()}"
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        for name, content in _contents(file.name, file.read_bytes())
        for needle in needles
        if needle in content
    ]


def _contents(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    yield name, content
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.namelist():
                yield from _contents(f"{name}/{entry}", archive.read(entry))
