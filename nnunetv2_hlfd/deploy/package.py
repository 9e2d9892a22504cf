"""What every export has: a folder of its own name, provenance, checksums, and a zip of it, whole or not at all."""

import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nnunetv2_hlfd.deploy.card import CARD_FILE, write_card
from nnunetv2_hlfd.deploy.card_facts import PROVENANCE_FILE, Measured
from nnunetv2_hlfd.deploy.inputs import FINGERPRINT
from nnunetv2_hlfd.deploy.provenance import Licenses, provenance_of
from nnunetv2_hlfd.deploy.runtime.verify import CHECKSUM_FILE
from nnunetv2_hlfd.deploy.source import Source
from nnunetv2_hlfd.models.checkpoints import sha256
from nnunetv2_hlfd.models.folder import ModelFolder, read_description
from nnunetv2_hlfd.plans.plans_check import check_folder_name
from nnunetv2_hlfd.utilities.atomic import atomic_path, partial_folder, publish, write_json, write_text
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json
from nnunetv2_hlfd.utilities.lock import LOCK_FILE, locked
from nnunetv2_hlfd.utilities.text import without_folders

SUFFIX = "HLFD"
_FILE_LISTS = ("dataset", "training", "validation", "test")  # of a dataset.json: names of cases, and paths


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Where the export lies: the model folder inside its data set's folder, and the same as a zip."""

    folder: Path
    archive: Path


def write_package(
    source: Source,
    output: Path,
    fill: Callable[[Path], None],
    choices: Mapping[str, object],
    dependencies: Sequence[str],
    licenses: Licenses,
) -> Exported:
    """Write `output/DATASET/TRAINER__{plans}HLFD__CONFIGURATION` and a zip of it.

    The plans get a name of their own: installing the zip can not overwrite the folder of the teacher.

    Args:
        source: the trained model.
        output: folder to write to; made where it is missing.
        fill: writes the folds into the folder that it is given.
        choices: of the user, for the record.
        dependencies: packages whose versions matter, beside nnU-Net's and this package's.
        licenses: for the model card.

    Raises:
        UserError: for an export that is there already.
    """
    model = source.model
    dataset, plans_name = model.plans.dataset_name, model.plans.plans_name.removesuffix(SUFFIX) + SUFFIX
    target = output / dataset / f"{model.network_trainer}__{plans_name}__{model.configuration}"
    archive = output / f"{dataset}_{target.name}.zip"
    lock = locked(target.parent, "nnUNetv2_hlfd export", name=f".{target.name}{LOCK_FILE}")
    with lock, partial_folder(target) as temporary:
        for existing in (target, archive):
            if existing.exists():
                raise UserError(f"{existing} is there already. Remove it, or choose another folder with -o.")
        folder = temporary / target.name
        folder.mkdir()
        write_json(folder / "plans.json", without_folders({**model.plans.plans, "plans_name": plans_name}))
        description = {key: value for key, value in model.dataset_json.items() if key not in _FILE_LISTS}
        write_json(folder / "dataset.json", without_folders(description))
        _copy_fingerprint(source, folder)
        fill(folder)
        write_json(folder / PROVENANCE_FILE, provenance_of(source, choices, dependencies, licenses))
        packed = _finish(folder, dataset, temporary / archive.name)
        publish(folder, target)
        publish(packed, archive)
    return Exported(folder=target, archive=archive)


def add_measured(exported: Exported, measured: Measured) -> str:
    """Complete the model card of an export by what was measured with it; returns the card.

    Raises:
        UserError: for damaged files, or where they cannot be written.
    """
    folder, archive = exported.folder, exported.archive
    provenance = {**read_json(folder / PROVENANCE_FILE), "measured": asdict(measured)}
    provenance["validation"] = {}  # its labels are the teacher's
    write_json(folder / PROVENANCE_FILE, provenance)
    with atomic_path(archive) as temporary:
        _finish(folder, folder.parent.name, temporary)
    return (folder / CARD_FILE).read_text(encoding="utf-8")


def _finish(folder: Path, dataset: str, archive: Path) -> Path:
    """Write the card, the checksums and the zip."""
    write_card(folder)
    _write_checksums(folder)
    return _pack(folder, dataset, archive)


def _write_checksums(folder: Path) -> None:
    """Write the checksums in the format of `sha256sum --check`."""
    unlisted = (CHECKSUM_FILE, CARD_FILE)  # the author completes the card
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in unlisted)
    lines = [f"{sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    write_text(folder / CHECKSUM_FILE, "".join(lines))


def _pack(folder: Path, dataset: str, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, (Path(dataset) / folder.name / path.relative_to(folder)).as_posix())
    return archive


def _copy_fingerprint(source: Source, folder: Path) -> None:
    """Copy the fingerprint, with which images are compared, where the model has one."""
    fingerprint = source.model.path / FINGERPRINT
    if fingerprint.is_file():
        shutil.copyfile(fingerprint, folder / fingerprint.name)


def read_exported(path: Path) -> ModelFolder:
    """Read a folder that `nnUNetv2_hlfd export -to onnx` or `openvino` wrote: its networks are no checkpoints.

    Raises:
        UserError: for another folder or damaged files.
    """
    file = path / PROVENANCE_FILE
    provenance = read_json(file) if file.is_file() else {}
    if "configuration" not in provenance:  # written before 0.2
        return ModelFolder.open(path)
    plans, dataset_json = read_description(path)
    for key in ("configuration", "trainer"):
        check_folder_name(key, provenance.get(key), file)
    return ModelFolder(
        path=path,
        plans=plans,
        dataset_json=dataset_json,
        configuration=provenance["configuration"],
        trainer=provenance["trainer"],
        network_trainer=provenance["trainer"],
        mirror_axes=None,
    )
