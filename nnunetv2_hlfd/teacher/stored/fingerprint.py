"""Whether files, or what is written about them, are still the same."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.utilities.errors import UserError

_ENDS = 64 * 1024  # bytes of a file's head and of its tail that are looked at
_ENDINGS = (".b2nd", ".npz")  # of nnU-Net's preprocessed cases


def case_files(dataset: Any, case: str) -> list[Path]:
    """The files that a preprocessed image is read from, in a cascade with its previous segmentation.

    Raises:
        UserError: where one is missing.
    """
    files = []
    for folder in filter(None, (dataset.source_folder, dataset.folder_with_segs_from_previous_stage)):
        found = [file for ending in _ENDINGS if (file := Path(folder) / f"{case}{ending}").is_file()]
        if not found:
            raise UserError(f"Expected the preprocessed case {case} in {folder}, found none.")
        files.append(found[0])
    return files


def fingerprint(files: Iterable[Path]) -> dict[str, Any]:
    """Bytes, and SHA-256 of heads and tails: large files are told apart without reading them whole."""
    size, digest = 0, hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(file.read(_ENDS))
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - _ENDS, 0))
            digest.update(file.read(_ENDS))
        size += end
    return {"bytes": size, "sha256": digest.hexdigest()}


def hash_json(content: object) -> str:
    """SHA-256 of what JSON can hold, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
