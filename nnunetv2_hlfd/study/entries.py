"""A study file's entries, read with errors that name their place."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nnunetv2_hlfd.settings.rules import nearest
from nnunetv2_hlfd.utilities.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML that reads 1e-4 as a number, and in which no entry silently replaces another of the same name."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice."""
        merge = "tag:yaml.org,2002:merge"  # <<: *anchor
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(file: Path) -> Any:
    """Content of a YAML file.

    Raises:
        UserError: for a file that is missing or no YAML.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Expected a study in YAML at {file}: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{file} is no valid YAML: {error}") from error


def read_name(key: Any, place: str) -> str:
    """A name as text; YAML reads names such as no, on and 1 as something else."""
    if not isinstance(key, str):
        raise UserError(f"Expected a text as a name in {place}, got {key!r}. Put it in quotes.")
    return key


def read_mapping(value: Any, place: str) -> dict[str, Any]:
    """Entries under a key."""
    if not isinstance(value, dict):
        raise UserError(f"Expected 'key: value' entries in {place}, got {value!r}.")
    return value


def check_keys(entry: Mapping[str, Any], keys: list[str], place: str) -> None:
    """Refuse a key that is not known, with the nearest one."""
    for key in entry:
        if key not in keys:
            raise UserError(f"{place}: unknown key '{key}'.{nearest(str(key), keys)}")


def read_numbers(value: Any, place: str) -> list[int]:
    """Different integers of at least 0."""
    numbers = read_list(value, place)
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers):
        raise UserError(f"Expected integers of at least 0 for '{place}', got {value!r}.")
    check_distinct(numbers, place)
    return numbers


def read_list(value: Any, place: str) -> list[Any]:
    """A list that is not empty."""
    if not isinstance(value, list) or not value:
        raise UserError(f"Expected a list such as [0, 1] for '{place}', got {value!r}.")
    return value


def check_distinct(values: Sequence[Any], place: str) -> None:
    """Refuse what is there twice."""
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise UserError(f"Expected different entries in '{place}', got {twice[0]!r} twice.")
