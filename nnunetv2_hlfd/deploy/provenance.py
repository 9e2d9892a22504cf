"""Where an export comes from, for export.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import isfinite
from typing import Any

from nnunetv2_hlfd.deploy.inputs import training_orientations
from nnunetv2_hlfd.deploy.source import Source
from nnunetv2_hlfd.models.checkpoints import sha256
from nnunetv2_hlfd.models.fold import SUMMARY
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.utilities.json_file import read_json, refuse_damage
from nnunetv2_hlfd.utilities.text import without_folders


@dataclass(frozen=True, kw_only=True)
class Licenses:
    """What the author states; None: nothing, of the data also not in dataset.json."""

    weights: str | None = None
    data: str | None = None


def provenance_of(
    source: Source, choices: Mapping[str, object], dependencies: Sequence[str], licenses: Licenses
) -> dict[str, Any]:
    """Say where the model comes from, without absolute paths, because the export leaves the machine."""
    model = source.model
    records = {fold: model.fold(fold).record() for fold in source.folds}
    of_data = model.dataset_json.get("license") or model.dataset_json.get("licence")
    validations = {fold: _validation(model, fold) for fold in source.folds}
    return {
        "source": model.name,
        "trainer": model.network_trainer,
        "configuration": model.configuration,
        "source_checkpoints_sha256": {fold: sha256(source.file(fold)) for fold in source.folds},
        **choices,
        "license": {"weights": licenses.weights, "data": licenses.data or (str(of_data) if of_data else None)},
        "orientations": training_orientations(model),
        "validation": {fold: figures for fold, figures in validations.items() if figures},
        "versions": {name: version(name) for name in ("nnunetv2_hlfd", "nnunetv2", "torch", *dependencies)},
        "records": {fold: without_folders(record) for fold, record in records.items() if record},
    }


def _validation(model: ModelFolder, fold: str) -> dict[str, Any] | None:
    """Mean Dice of nnU-Net's validation and its number of cases, where it was finished."""
    summary = model.fold(fold).file(SUMMARY)
    if not summary.is_file():
        return None
    with refuse_damage(summary):
        content = read_json(summary)
        dice = float(content["foreground_mean"]["Dice"])
        return {"dice": dice, "cases": len(content["metric_per_case"])} if isfinite(dice) else None
