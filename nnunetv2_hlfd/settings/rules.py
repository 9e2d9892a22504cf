"""What a setting accepts: its rule, the check of a value, and the words for both."""

import contextlib
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.utilities.errors import UserError

_LARGEST = 2**32 - 1  # of every number, as of NumPy's seeds


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What one setting accepts.

    Attributes:
        text: one line of help.
        kinds: the types that it accepts; an integer stands for a float, too.
        choices: the only texts that it accepts.
        texts: the only texts that it accepts beside values of its other types.
        form: its texts are folders' names with as many parts between `__` as this one.
        least: its numbers are at least this.
        above: its numbers are above this.
        most: its numbers are at most this.
    """

    text: str
    kinds: tuple[type, ...]
    choices: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    form: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None

    def check(self, name: str, value: Any) -> Any:
        """Return the value of the setting of that name as it is kept: an integer as a float where floats are meant.

        Raises:
            UserError: naming the setting, what it accepts and what it got.
        """
        if float in self.kinds and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if dict in self.kinds and isinstance(value, Mapping):
            value = dict(value)
        if self.choices and isinstance(value, str) and value not in self.choices:
            raise UserError(f"Expected {self} for setting '{name}', got '{value}'.{nearest(value, self.choices)}")
        if not self._accepts(value):
            raise UserError(f"Expected {self} for setting '{name}', got {value!r}.")
        if isinstance(value, int | float) and abs(value) > _LARGEST:
            raise UserError(f"Expected a number of at most {_LARGEST} for setting '{name}', got {value!r:.40}.")
        return value

    def parse(self, name: str, text: str) -> Any:
        """Turn a command line's text into a value of the setting of that name (`null` or `none` unsets it).

        Raises:
            UserError: where the text is none.
        """
        if type(None) in self.kinds and text.lower() in ("null", "none"):
            return None
        if bool in self.kinds and text.lower() in ("true", "false", "1", "0"):
            return text.lower() in ("true", "1")
        for kind in (int, float):
            if kind in self.kinds:
                with contextlib.suppress(ValueError):
                    return kind(text)
        if str in self.kinds:
            return text
        if dict in self.kinds:
            with contextlib.suppress(ValueError):
                return {key.strip(): float(number) for key, number in (pair.split("=") for pair in text.split(","))}
        raise UserError(f"Expected {self} for setting '{name}', got '{text}'.")

    def __str__(self) -> str:
        """Say what the setting accepts."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        limits = "" if self.least is None else f" of at least {self.least}"
        limits += "" if self.above is None else f" above {self.above}"
        limits += "" if self.most is None else f", at most {self.most}"
        words: dict[type, str] = {
            dict: f"NAME=FACTOR,... with numbers{limits}",
            int: f"an integer{limits}",
            float: f"a number{limits}",
            str: " or ".join(f"'{text}'" for text in self.texts) or self.form or "text",
            bool: "true or false",
            type(None): "null",
        }
        return " or ".join(words[kind] for kind in self.kinds)

    def _accepts(self, value: Any) -> bool:
        if not isinstance(value, self.kinds) or (isinstance(value, bool) and bool not in self.kinds):
            return False
        if isinstance(value, dict):
            return all(isinstance(key, str) and key and self._has_number(number) for key, number in value.items())
        if isinstance(value, str):
            return (not self.texts or value in self.texts) and self._has_form(value)
        return isinstance(value, bool | None) or self._has_number(value)

    def _has_number(self, value: Any) -> bool:
        """Return whether it is a finite number within the limits."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            return False
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
        )

    def _has_form(self, value: str) -> bool:
        """Return whether it is a folder's name with as many parts as the form, as nnU-Net makes its folders' names."""
        parts = value.split("__")
        return not self.form or (len(parts) == len(self.form.split("__")) and all(parts) and Path(value).name == value)


def as_text(value: Any) -> str:
    """Return a setting's value in words; true and false as on the command line."""
    return "unset" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def nearest(name: str, valid: Sequence[str]) -> str:
    """Return ' Did you mean ...?' with the nearest valid name, else the list of all."""
    close = difflib.get_close_matches(name, valid, n=1)
    return f" Did you mean '{close[0]}'?" if close else f" Valid are: {', '.join(valid)}."
