"""What a setting accepts: its rule, the check of a value, and the words for both."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.utilities.errors import UserError


def setting(
    default: Any,
    text: str,
    kinds: tuple[type, ...],
    *,
    choices: tuple[str, ...] = (),
    texts: tuple[str, ...] = (),
    form: str = "",
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> Any:
    """One setting: default, one line of help, the types it accepts and its limits.

    Of a text: `choices` or `texts` are the only ones (beside values of the other types), `form` is a folder's name with
    as many parts between `__`.
    """
    return field(
        default=default,
        metadata={
            "text": text,
            "kinds": kinds,
            "choices": choices,
            "texts": texts,
            "form": form,
            "least": least,
            "above": above,
            "most": most,
        },
    )


def check_value(name: str, value: Any, rule: Mapping[str, Any]) -> Any:
    """The value of a setting as it is kept (an integer stands for a float).

    Raises:
        UserError: naming the setting, what it accepts and what it got.
    """
    kinds = rule["kinds"]
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if dict in kinds and isinstance(value, Mapping):
        value = dict(value)
        wrong = not all(isinstance(key, str) and key and _is_number(each, rule) for key, each in value.items())
    else:
        wrong = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
        if not wrong and isinstance(value, int | float) and not isinstance(value, bool):
            wrong = not _is_number(value, rule)
    choices = rule["choices"]
    if not wrong and choices and value not in choices:
        raise UserError(
            f"Expected {expected_value(rule)} for setting '{name}', got '{value}'.{nearest(value, choices)}"
        )
    if isinstance(value, str):
        wrong = wrong or bool(rule["texts"] and value not in rule["texts"]) or not _has_form(value, rule["form"])
    if wrong:
        raise UserError(f"Expected {expected_value(rule)} for setting '{name}', got {value!r}.")
    return value


def _has_form(value: str, form: str) -> bool:
    """Whether it is the name of a folder made of as many parts as the form, as nnU-Net makes its folders' names."""
    parts = value.split("__")
    return not form or (len(parts) == len(form.split("__")) and all(parts) and Path(value).name == value)


def _is_number(value: Any, rule: Mapping[str, Any]) -> bool:
    """Whether it is a finite number within the rule's limits."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return False
    if rule["most"] is not None and value > rule["most"]:
        return False
    return (rule["least"] is None or value >= rule["least"]) and (rule["above"] is None or value > rule["above"])


def expected_value(rule: Mapping[str, Any]) -> str:
    """What a setting accepts, in words."""
    if rule["choices"]:
        return "one of " + ", ".join(rule["choices"])
    words: dict[type, str] = {
        dict: "NAME=FACTOR,... with numbers",
        int: "an integer",
        float: "a number",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    words[str] = " or ".join(f"'{each}'" for each in rule["texts"]) or rule["form"] or words[str]
    expected = " or ".join(words[kind] for kind in rule["kinds"])
    if rule["least"] is not None:
        expected += f" of at least {rule['least']}"
    if rule["above"] is not None:
        expected += f" above {rule['above']}"
    if rule["most"] is not None:
        expected += f", at most {rule['most']}"
    return expected


def nearest(name: str, valid: "tuple[str, ...] | list[str]") -> str:
    """' Did you mean ...?' with the nearest valid name, else the list of all."""
    close = difflib.get_close_matches(name, valid, n=1)
    return f" Did you mean '{close[0]}'?" if close else f" Valid are: {', '.join(valid)}."
