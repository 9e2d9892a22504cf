"""What a run is: its settings in the plans, and whether a folder already holds another one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import load_json

from nnunetv2_hlfd.config import PLANS_KEY, Settings

RECORD_FILE = "distillation.json"


def base_plans_name(plans: Mapping[str, Any]) -> str:
    """Name of the plans that a variant was made from; the plans' own name if they are no variant."""
    return plans.get(PLANS_KEY, {}).get("base_plans", plans["plans_name"])


def different_settings(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Settings present on both sides that differ, in words."""
    return [
        f"{name}: {ours[name]!r} here, {theirs[name]!r} there"
        for name in ours
        if name in theirs and ours[name] != theirs[name]
    ]


def check_folder_is_ours(model_folder: Path, settings: Settings) -> None:
    """Refuse to start in a model folder whose plans.json or folds were made with other settings.

    Raises:
        ValueError: naming the settings that differ and the two ways out.
    """
    records = [model_folder / "plans.json", *sorted(model_folder.glob(f"fold_*/{RECORD_FILE}"))]
    for record in filter(Path.is_file, records):
        content = load_json(str(record))
        theirs = content.get(PLANS_KEY, {}).get("settings", {}) if record.name == "plans.json" else content["given"]
        differences = different_settings(settings.to_dict(), theirs)
        if differences:
            raise ValueError(
                f"{record} belongs to a run with other settings ({'; '.join(differences)}). Give this run its own "
                f"plans name with: nnUNetv2_hlfd plan -name NAME ..., or replace the old run with: "
                f"nnUNetv2_hlfd train ... --overwrite"
            )


def check_resumed_settings(given: Mapping[str, Any], recorded: Mapping[str, Any], checkpoint: str) -> None:
    """A run is continued with the settings it was started with; an explicitly given other value is refused.

    Raises:
        ValueError: naming the settings.
    """
    differences = different_settings(given, recorded)
    if differences:
        raise ValueError(
            f"Cannot continue {checkpoint} with other settings ({'; '.join(differences)}). Remove them from the plans, "
            f"or give the new run its own plans name with: nnUNetv2_hlfd plan -name NAME ..."
        )
