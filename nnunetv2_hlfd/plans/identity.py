"""What a run is: its settings in the plans, and whether a folder already holds another one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.settings.settings import PLANS_KEY, Settings
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json

RECORD_FILE = "distillation.json"


def base_plans_name(plans: Mapping[str, Any]) -> str:
    """Return the name of the plans that all variants of a chain go back to; that of plans that are no variant."""
    return plans.get(PLANS_KEY, {}).get("base_plans", plans["plans_name"])


def plans_lineage(plans: Mapping[str, Any]) -> list[str]:
    """List the plans under whose names a teacher is looked for: these, those they were made from, the base plans."""
    made_from = plans.get(PLANS_KEY, {}).get("made_from", plans["plans_name"])
    return list(dict.fromkeys((plans["plans_name"], made_from, base_plans_name(plans))))


def different_settings(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Say which settings that are present on both sides differ."""
    return [
        f"{name}: {here[name]!r} here, {there[name]!r} there"
        for name in here
        if name in there and here[name] != there[name]
    ]


def check_folder_settings(
    model_folder: Path, settings: Settings, fold: int | str | None = None, *, overwrite: bool = False
) -> None:
    """Refuse to start in a model folder whose plans.json or folds were made with other settings.

    Args:
        model_folder: of this run.
        settings: of this run.
        fold: of this run; --overwrite replaces no other.
        overwrite: whether the model's plans.json and the record of this fold may have other settings.

    Raises:
        UserError: naming the settings that differ and two remedies.
    """
    records = [model_folder / "plans.json", *sorted(model_folder.glob(f"fold_*/{RECORD_FILE}"))]
    replaced = (records[0], model_folder / f"fold_{fold}" / RECORD_FILE) if overwrite else ()
    for record in (record for record in records if record.is_file() and record not in replaced):
        content = read_json(record)
        try:
            is_record = record.name == RECORD_FILE
            recorded = content["given"] if is_record else content.get(PLANS_KEY, {}).get("settings", {})
        except (KeyError, AttributeError) as error:
            raise UserError(f"{record} is damaged: it holds no settings. Remove it or its run.") from error
        differences = different_settings(settings.to_dict(), recorded)
        if differences:
            replaceable = fold is None or not is_record or record.parent.name == f"fold_{fold}"
            remedy = (
                "replace the old run with: nnUNetv2_hlfd train ... --overwrite"
                if replaceable
                else f"remove {record.parent}: the folds of one model share their settings"
            )
            raise UserError(
                f"{record} belongs to a run with other settings ({'; '.join(differences)}). Give this run its own "
                f"plans name with: nnUNetv2_hlfd plan -name NAME ..., or {remedy}."
            )


def check_resumed_settings(given: Mapping[str, Any], recorded: Mapping[str, Any], checkpoint: str) -> None:
    """Refuse a given setting that differs: a run is continued with the settings that it was started with.

    Raises:
        UserError: naming the settings.
    """
    differences = different_settings(given, recorded)
    if differences:
        raise UserError(
            f"Cannot continue {checkpoint} with other settings ({'; '.join(differences)}). Remove them from the plans, "
            f"or give the new run its own plans name with: nnUNetv2_hlfd plan -name NAME ..."
        )
