"""A study file's entries, read with errors that name their place."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nnunetv2_hlfd.settings.rules import nearest
from nnunetv2_hlfd.utilities.errors import UserError

_MOST_CHARACTERS = 100_000
_NODE = 10  # characters that an entry counts, however short it is
_LONGEST = 1000  # a text or a number
_DEEPEST = 20
_SHOWN = 500  # characters of a value in a message


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
        UserError: for a file that is missing, no YAML, or out of all proportion.
    """
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(_MOST_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Expected a study in YAML at {file}: {error}") from error
    try:
        _check_proportions(text)
        return yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except UserError as error:
        raise UserError(f"{file} is no study: {error}") from error
    except Exception as error:  # numbers and dates that are none raise many kinds
        raise UserError(f"{file} is no valid YAML: {str(error)[:_SHOWN]}") from error


@dataclass
class _Extent:
    """How much a node and all below it are, with what is repeated by name."""

    anchor: str | None = None
    characters: int = 0
    levels: int = 0

    def add(self, inner: "_Extent") -> None:
        """Take a node in; refuse what becomes too much."""
        self.characters += inner.characters
        self.levels = max(self.levels, inner.levels + 1)
        if self.characters > _MOST_CHARACTERS:
            raise UserError(f"expected at most {_MOST_CHARACTERS} characters, with all that is repeated by name")
        if self.levels > _DEEPEST:
            raise UserError(f"expected at most {_DEEPEST} levels, one inside the other")


def _check_proportions(text: str) -> None:
    """Refuse a text that is large or deep, also where it repeats parts of itself by name (*name).

    Raises:
        UserError: saying what there is too much of.
        yaml.YAMLError: for a text that is no YAML.
    """
    named: dict[str, _Extent] = {}
    open_nodes = [_Extent(characters=len(text))]
    open_nodes[0].add(_Extent())
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent) and len(open_nodes) <= _DEEPEST:
            open_nodes.append(_Extent(event.anchor, _NODE))
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            node = open_nodes.pop()
        elif isinstance(event, yaml.AliasEvent):
            node = named.get(event.anchor, _Extent(levels=_DEEPEST))  # of a node that holds itself
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > _LONGEST:
                raise UserError(f"expected texts and numbers of at most {_LONGEST} characters")
            node = _Extent(event.anchor, _NODE + len(event.value))
        else:
            node = _Extent(levels=_DEEPEST if isinstance(event, yaml.CollectionStartEvent) else 0)
        open_nodes[-1].add(node)
        if node.anchor:
            named[node.anchor] = node


def read_name(key: Any, place: str) -> str:
    """A name as text; YAML reads names such as no, on and 1 as something else."""
    if not isinstance(key, str):
        raise UserError(f"Expected a text as a name in {place}, got {key!r:.{_SHOWN}}. Put it in quotes.")
    return key


def read_mapping(value: Any, place: str) -> dict[str, Any]:
    """Entries under a key."""
    if not isinstance(value, dict):
        raise UserError(f"Expected 'key: value' entries in {place}, got {value!r:.{_SHOWN}}.")
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
        raise UserError(f"Expected integers of at least 0 for '{place}', got {value!r:.{_SHOWN}}.")
    check_distinct(numbers, place)
    return numbers


def read_list(value: Any, place: str) -> list[Any]:
    """A list that is not empty."""
    if not isinstance(value, list) or not value:
        raise UserError(f"Expected a list such as [0, 1] for '{place}', got {value!r:.{_SHOWN}}.")
    return value


def check_distinct(values: Sequence[Any], place: str) -> None:
    """Refuse what is there twice."""
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise UserError(f"Expected different entries in '{place}', got {twice[0]!r:.{_SHOWN}} twice.")


def text_of(value: Any) -> str:
    """The value of a setting as a part of a name."""
    if isinstance(value, dict):
        return "-".join(f"{key}{number}" for key, number in value.items())
    return "null" if value is None else str(value)
