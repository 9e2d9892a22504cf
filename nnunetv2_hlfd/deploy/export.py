"""`nnUNetv2_hlfd export`: a trained model as small, harmless files that stock nnU-Net installs and predicts with."""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from nnunetv2_hlfd.checkpoints import read_checkpoint, sha256, write_checkpoint
from nnunetv2_hlfd.config import PLANS_KEY
from nnunetv2_hlfd.identity import RECORD_FILE
from nnunetv2_hlfd.json_file import read_json, refuse_damage
from nnunetv2_hlfd.plans_check import check_configuration, check_folder_name, check_plans

SUFFIX = "HLFD"
PROVENANCE_FILE = "export.json"
CHECKSUM_FILE = "SHA256SUMS"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Where the export lies: the model folder inside its data set's folder, and the same as a zip."""

    folder: Path
    archive: Path


def export_nnunet(
    model: Path,
    output: Path,
    *,
    folds: Sequence[str] | None = None,
    checkpoint: str = "checkpoint_final.pth",
    half: bool = False,
    mirroring: bool = True,
) -> Exported:
    """Write `output/DATASET/TRAINER__{plans}HLFD__CONFIGURATION` and a zip of it for nnU-Net's own installer.

    The files hold weights and what prediction needs, nothing of the training. The plans get a name of their own:
    installing the zip can not overwrite the folder of the teacher.

    Args:
        model: folder TRAINER__PLANS__CONFIGURATION.
        output: folder to write to; made where it is missing.
        folds: such as 0 or all; unset: all that have the checkpoint.
        checkpoint: file in the fold's folder.
        half: store the weights in float16. nnU-Net computes in the precision of its network, as before.
        mirroring: False: prediction without test-time mirroring, 2 to 8 times fewer forward passes.

    Raises:
        ValueError: for a folder that is no model or lacks a fold, damaged files, or an export that is there already.
    """
    plans, dataset_json = _read(model / "plans.json"), _read(model / "dataset.json")
    folds = list(folds) if folds else _available_folds(model, checkpoint)
    contents = {fold: read_checkpoint(model / f"fold_{fold}" / checkpoint) for fold in folds}
    with refuse_damage(f"A file in {model} (plans.json or {checkpoint})"):
        configuration = contents[folds[0]]["init_args"]["configuration"]
        check_plans(plans, model / "plans.json")
        check_configuration(PlansManager(plans), configuration, model / "plans.json")
        plans["plans_name"] = plans["plans_name"].removesuffix(SUFFIX) + SUFFIX
        trainer, dataset = contents[folds[0]]["trainer_name"], plans["dataset_name"]
        for key, name in (("trainer_name", trainer), ("configuration", configuration)):
            check_folder_name(key, name, model / f"fold_{folds[0]}" / checkpoint)
    target = output / dataset / f"{trainer}__{plans['plans_name']}__{configuration}"
    archive = output / f"{dataset}_{target.name}.zip"
    for existing in (target, archive):
        if existing.exists():
            raise ValueError(f"{existing} is there already. Remove it, or choose another folder with -o.")

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export_") as temporary:
        folder = Path(temporary) / target.name
        folder.mkdir()
        _write_json(plans, folder / "plans.json")
        _write_json(dataset_json, folder / "dataset.json")
        if (model / "dataset_fingerprint.json").is_file():
            shutil.copyfile(model / "dataset_fingerprint.json", folder / "dataset_fingerprint.json")
        for fold, content in contents.items():
            file = folder / f"fold_{fold}" / checkpoint
            file.parent.mkdir()
            write_checkpoint(_prediction_content(content, half=half, mirroring=mirroring), file)
        sources = {fold: sha256(model / f"fold_{fold}" / checkpoint) for fold in folds}
        provenance = _provenance(model, sources, half=half, mirroring=mirroring)
        _write_json(provenance, folder / PROVENANCE_FILE)
        _write_checksums(folder)
        packed = _pack(folder, dataset, Path(temporary) / archive.name)
        folder.rename(target)
        packed.rename(archive)
    return Exported(folder=target, archive=archive)


def needs_trainer(exported: Exported) -> str | None:
    """Name of the trainer that prediction needs beside stock nnU-Net, if any: no plans describe its network."""
    trainer = exported.folder.name.split("__")[0]
    return None if trainer == nnUNetTrainer.__name__ else trainer


def _available_folds(model: Path, checkpoint: str) -> list[str]:
    folds = sorted(each.parent.name.removeprefix("fold_") for each in model.glob(f"fold_*/{checkpoint}"))
    if not folds:
        raise ValueError(f"Expected folds with {checkpoint} in {model}, found none. Name another file with -chk.")
    return folds


def _prediction_content(content: Mapping[str, Any], *, half: bool, mirroring: bool) -> dict[str, Any]:
    """What nnU-Net's predictor reads, and the settings of the training where this package made it."""
    axes = content.get("inference_allowed_mirroring_axes")
    ours = content.get(PLANS_KEY)
    exported = {
        "network_weights": _halved(content["network_weights"]) if half else content["network_weights"],
        "trainer_name": content["trainer_name"],
        "init_args": {"configuration": content["init_args"]["configuration"]},
        "inference_allowed_mirroring_axes": tuple(axes) if mirroring and axes is not None else None,
    }
    if isinstance(ours, Mapping):
        exported[PLANS_KEY] = {key: ours[key] for key in ("trainer", "settings") if key in ours}
    return exported


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in float16. nnU-Net lists the encoder's weights several times; each is converted, and stored, once."""
    done: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    halved = {}
    for name, weight in weights.items():
        key = (weight.data_ptr(), tuple(weight.shape))
        if key not in done:
            done[key] = weight.half() if weight.is_floating_point() else weight
            if not done[key].isfinite().all():
                raise ValueError(f"The weight {name} is too large for float16. Export without --half.")
        halved[name] = done[key]
    return halved


def _provenance(model: Path, sources: Mapping[str, str], *, half: bool, mirroring: bool) -> dict[str, Any]:
    """Where the model comes from: no absolute paths, because the export leaves the machine."""
    records = {}
    for fold in sources:
        file = model / f"fold_{fold}" / RECORD_FILE
        if file.is_file():
            records[fold] = _without_folders(read_json(file))
    return {
        "source": model.name,
        "source_checkpoints_sha256": dict(sources),
        "weights": "float16" if half else "as trained",
        "mirroring": mirroring,
        "versions": {name: version(name) for name in ("nnunetv2_hlfd", "nnunetv2", "torch")},
        "records": records,
    }


def _without_folders(record: dict[str, Any]) -> dict[str, Any]:
    for network in record.get("teacher", {}).get("networks", []):
        network["folder"] = Path(network["folder"]).name
    return record


def _write_checksums(folder: Path) -> None:
    """In the format of `sha256sum --check`."""
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    lines = [f"{sha256(each)}  {each.relative_to(folder).as_posix()}\n" for each in files]
    (folder / CHECKSUM_FILE).write_text("".join(lines), encoding="utf-8")


def _pack(folder: Path, dataset: str, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for each in sorted(folder.rglob("*")):
            file.write(each, (Path(dataset) / folder.name / each.relative_to(folder)).as_posix())
    return archive


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except FileNotFoundError as error:
        raise ValueError(
            f"Expected a model folder of nnU-Net (.../TRAINER__PLANS__CONFIGURATION) with {file.name}, no {file}."
        ) from error


def _write_json(content: Mapping[str, Any], file: Path) -> None:
    file.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
