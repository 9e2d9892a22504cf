"""Plans variants: the same preprocessed data under another plans name, with other settings."""

import re
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunetv2_hlfd.config import PLANS_KEY, Settings, given_settings
from nnunetv2_hlfd.identity import base_plans_name, different_settings
from nnunetv2_hlfd.json_file import read_json
from nnunetv2_hlfd.plans_check import check_plans


def check_variant_name(name: str) -> None:
    """Refuse what nnU-Net's folder names cannot hold.

    Raises:
        ValueError: saying what a name is made of.
    """
    if not re.fullmatch(r"[A-Za-z0-9]+([_.-][A-Za-z0-9]+)*", name):
        raise ValueError(f"Expected a name of letters, digits and single '_', '-' or '.' between them, got '{name}'.")


def write_variant(dataset: str, base: str, name: str, settings: dict[str, Any], *, overwrite: bool = False) -> Path:
    """Write `{base}_{name}.json`: its own plans_name, the base's preprocessed data, an `hlfd` block with the settings.

    Args:
        dataset: nnU-Net's name or ID.
        base: plans identifier, which may be a variant itself: its settings are kept where no new ones are given.
        name: letters, digits and single underscores.
        settings: public name -> value.
        overwrite: replace a variant of that name with other settings.

    Returns:
        The file.

    Raises:
        ValueError: for a name that nnU-Net's folder names cannot hold, missing plans, bad settings, or an existing
            variant with other settings.
    """
    check_variant_name(name)
    try:
        folder = Path(nnUNet_preprocessed) / maybe_convert_to_dataset_name(dataset)
    except RuntimeError as error:  # nnU-Net's message says which data set or variable is missing
        raise ValueError(str(error)) from error
    base_file = folder / f"{base}.json"
    if not base_file.is_file():
        raise ValueError(f"Expected plans at {base_file}, found none. Make them with: nnUNetv2_plan_and_preprocess")
    plans = read_json(base_file)
    check_plans(plans, base_file)
    settings = {**given_settings(plans), **settings}
    Settings.from_dict(settings)
    original = base_plans_name(plans)
    lineage = {"base_plans": original} if original == base else {"base_plans": original, "made_from": base}
    plans[PLANS_KEY] = {**lineage, "settings": settings}
    plans["plans_name"] = f"{base}_{name}"
    target = folder / f"{base}_{name}.json"
    if not overwrite and (differences := variant_differences(target, settings)):
        raise ValueError(
            f"{target} exists with other settings ({differences}). Choose another -name, or add --overwrite."
        )
    save_json(plans, str(target), sort_keys=False)
    return target


def variant_differences(file: Path, settings: dict[str, Any]) -> str:
    """Settings in which a variant that is there already differs, in words; empty for none or the same one."""
    existing = given_settings(read_json(file)) if file.is_file() else settings
    if existing == settings:
        return ""
    changes = different_settings(settings, existing) or [f"{sorted(settings)} here, {sorted(existing)} there"]
    return "; ".join(changes)
