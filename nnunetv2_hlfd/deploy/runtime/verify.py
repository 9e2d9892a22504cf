"""Whether an export's files are those that were exported."""

import hashlib
from pathlib import Path

from .errors import UserError
from .network import FILES

CHECKSUM_FILE = "SHA256SUMS"


def find_damage(model: Path) -> tuple[int, list[str]]:
    """Compare a model folder with its SHA256SUMS.

    Returns:
        How many files are listed, and what is wrong with which: changed or missing files, and networks that the list
        does not know but the program would use.

    Raises:
        UserError: where the list is missing or is none.
    """
    sums = model / CHECKSUM_FILE
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
        listed = {name: checksum for checksum, name in (line.split("  ", 1) for line in lines if line)}
    except (OSError, ValueError) as error:
        raise UserError(f"Expected checksums in {sums}: {error}") from error
    if not listed:
        raise UserError(f"Expected checksums in {sums}, found none.")
    networks = {file.relative_to(model).as_posix() for name in FILES.values() for file in model.glob(f"fold_*/{name}")}
    wrong = [f"{name}: {state}" for name, checksum in listed.items() if (state := _state(model / name, checksum))]
    return len(listed), wrong + [f"{name}: not in {CHECKSUM_FILE}" for name in sorted(networks - listed.keys())]


def _state(file: Path, checksum: str) -> str | None:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                digest.update(block)
    except OSError:
        return "missing"
    return None if digest.hexdigest() == checksum.lower() else "changed"
