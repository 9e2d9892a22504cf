"""Plans variants: other settings under another plans name, on the same preprocessed data unless a window is given."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.datasets.locations import find_dataset
from nnunetv2_hlfd.plans.identity import base_plans_name, different_settings
from nnunetv2_hlfd.plans.plans_check import check_plans
from nnunetv2_hlfd.plans.preprocessed import find_plans
from nnunetv2_hlfd.plans.window import Window, clip_at
from nnunetv2_hlfd.settings.settings import PLANS_KEY, Settings, given_settings
from nnunetv2_hlfd.utilities.atomic import write_json
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json
from nnunetv2_hlfd.utilities.lock import LOCK_FILE, locked

_WAIT_SECONDS = 60  # for another process that writes plans of the same name


def check_variant_name(name: str) -> None:
    """Refuse what nnU-Net's folder names cannot hold.

    Raises:
        UserError: saying what a name is made of.
    """
    if not re.fullmatch(r"[A-Za-z0-9]+([_.-][A-Za-z0-9]+)*", name):
        raise UserError(f"Expected a name of letters, digits and single '_', '-' or '.' between them, got '{name}'.")


def write_variant(
    dataset: str,
    base: str,
    name: str,
    settings: dict[str, Any],
    *,
    window: Window | None = None,
    overwrite: bool = False,
) -> Path:
    """Write `{base}_{name}.json`: its own plans_name, the base's preprocessed data, an `hlfd` block with the settings.

    With a window the plans start a line of their own: other intensities need other preprocessed data, and a teacher
    of the base plans has not seen them.

    Args:
        dataset: nnU-Net's name or ID.
        base: plans identifier, which may be a variant itself: its settings are kept where no new ones are given.
        name: letters, digits and single underscores.
        settings: public name -> value.
        window: clip CT channels at these HU.
        overwrite: replace a variant of that name with other settings.

    Returns:
        The file.

    Raises:
        UserError: for a name that nnU-Net's folder names cannot hold, missing plans, bad settings, an existing
            variant with other settings or another window, or a window for data that are not CT.
    """
    check_variant_name(name)
    base_file = find_plans(find_dataset(dataset), base)
    folder = base_file.parent
    plans = read_json(base_file)
    check_plans(plans, base_file)
    settings = {**given_settings(plans), **settings}
    Settings.from_dict(settings)
    original = base_plans_name(plans)
    plans["plans_name"] = f"{base}_{name}"
    target = folder / f"{base}_{name}.json"
    if window:
        plans[PLANS_KEY] = {"base_plans": plans["plans_name"], "window": list(window), "settings": settings}
        clip_at(window, plans)
    else:
        lineage = {"base_plans": original} if original == base else {"base_plans": original, "made_from": base}
        plans[PLANS_KEY] = {**lineage, "settings": settings}
    with locked(folder, "nnUNetv2_hlfd plan", name=f".{target.stem}{LOCK_FILE}", wait_seconds=_WAIT_SECONDS):
        if not overwrite and (differences := variant_differences(target, settings, window)):
            raise UserError(
                f"{target} exists with other settings ({differences}). Choose another -name, or add --overwrite."
            )
        write_json(target, plans)
    return target


def variant_differences(file: Path, settings: dict[str, Any], window: Window | None = None) -> str:
    """Say in which settings a variant that is there already differs; nothing for none or the same one."""
    if not file.is_file():
        return ""
    plans = read_json(file)
    existing = given_settings(plans)
    if _window_of(plans) != window:
        return f"window: {_format(window)} here, {_format(_window_of(plans))} there"
    if existing == settings:
        return ""
    one_sided = [f"{name}: {settings[name]!r} here, not given there" for name in settings if name not in existing]
    one_sided += [f"{name}: not given here, {existing[name]!r} there" for name in existing if name not in settings]
    return "; ".join([*different_settings(settings, existing), *one_sided])


def _window_of(plans: Mapping[str, Any]) -> Window | None:
    window = plans.get(PLANS_KEY, {}).get("window")
    return tuple(window) if window else None


def _format(window: Window | None) -> str:
    return f"{window[0]:g},{window[1]:g}" if window else "none"
