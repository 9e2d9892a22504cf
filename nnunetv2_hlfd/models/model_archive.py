"""Zips of trained models, as nnUNetv2_export_model_to_zip writes them, unpacked without trust in what they say."""

import hashlib
import re
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_hlfd.utilities.atomic import partial_folder, publish
from nnunetv2_hlfd.utilities.errors import UserError

_NAME = r"\w[^/\\:*?\"<>|\x00-\x1f\x7f]*"
# All that is read of a model. Other entries stay in the zip; none of these leads out of the folder.
_WANTED = re.compile(
    rf"{_NAME}/{_NAME}/((plans|dataset|dataset_fingerprint)\.json"
    r"|fold_(\d{1,3}|all)/(checkpoint_\w{1,40}\.pth|distillation\.json|validation/summary\.json))"
)
_MOST_TIMES_LARGER, _ALWAYS_ALLOWED = 20, 2**26  # weights shrink by a tenth, JSON by more


def unpack_models(archive: Path, folder: Path) -> Path:
    """Unpack the models of a zip into a folder below `folder` whose name tells what was in the zip.

    Args:
        archive: With DATASET/TRAINER__PLANS__CONFIGURATION/plans.json and so on.
        folder: Made where it is missing. What was unpacked there before is taken as it is.

    Returns:
        The folder that holds the folders of the data sets.

    Raises:
        UserError: for a file that is no such zip, is damaged, or holds much more than its size allows.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = _wanted(opened, archive)
            target = folder / unpacked_name(entries)
            if not target.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                with partial_folder(target) as temporary:
                    for entry in entries:
                        file = temporary / target.name / entry.filename
                        file.parent.mkdir(parents=True, exist_ok=True)
                        with opened.open(entry) as source, file.open("wb") as output:
                            shutil.copyfileobj(source, output, 2**20)
                    publish(temporary / target.name, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{archive} is no zip of a model, or damaged: {error}") from error
    return target


def unpacked_name(entries: Sequence[zipfile.ZipInfo]) -> str:
    """Name of the folder that these entries are unpacked into: `model_` and what they are, by their checksums."""
    known = sorted((entry.filename, entry.CRC, entry.file_size) for entry in entries)
    return f"model_{hashlib.sha256(repr(known).encode()).hexdigest()[:12]}"


def find_models(folder: Path) -> list[Path]:
    """The model folders below a folder of data sets, or in the folder of one."""
    return sorted(file.parent for pattern in ("*", "*/*") for file in folder.glob(f"{pattern}/plans.json"))


def _wanted(opened: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    entries = [entry for entry in opened.infolist() if _WANTED.fullmatch(entry.filename)]
    if not any(entry.filename.endswith("/plans.json") for entry in entries):
        raise UserError(
            f"Expected a zip of nnUNetv2_export_model_to_zip with DATASET/TRAINER__PLANS__CONFIGURATION/plans.json, "
            f"found none in {archive}."
        )
    names = [entry.filename.casefold() for entry in entries]
    if len(set(names)) < len(names):
        raise UserError(f"{archive} holds the same file twice.")
    size, packed = sum(entry.file_size for entry in entries), archive.stat().st_size
    if size > _MOST_TIMES_LARGER * packed + _ALWAYS_ALLOWED:
        raise UserError(f"{archive} has {packed} bytes and unpacks to {size}: no trained model is packed so densely.")
    return entries
