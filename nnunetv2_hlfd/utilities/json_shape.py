"""The shape of a JSON file's content: which keys with values of which types."""

from collections.abc import Mapping
from typing import Any

from nnunetv2_hlfd.utilities.errors import UserError

# A type; alternatives in a tuple; [shape] for a list; {str: shape} for an object of any keys; {"key": shape} for an
# object with this key and others, {"key?": shape} where the key may be missing.
Shape = Any


def check_shape(value: Any, shape: Shape, place: str = "") -> None:
    """Check what a file holds.

    Args:
        value: as read.
        shape: see `Shape`. `float` stands for every number, `object` for everything.
        place: of the value in the file, for the message.

    Raises:
        UserError: naming the place, what was expected and what came.
    """
    if isinstance(shape, tuple):
        if not any(_fits(value, alternative) for alternative in shape):
            _refuse(value, " or ".join(map(_in_words, shape)), place)
    elif isinstance(shape, list):
        _check_type(value, list, place)
        for number, part in enumerate(value):
            check_shape(part, shape[0], f"{place}[{number}]")
    elif isinstance(shape, Mapping):
        _check_type(value, Mapping, place)
        for key, part in shape.items():
            _check_entry(value, key, part, place)
    else:
        _check_type(value, shape, place)


def _check_entry(value: Mapping[str, Any], key: Any, shape: Shape, place: str) -> None:
    if key is str:
        for name, part in value.items():
            check_shape(part, shape, f"{place}.{name:.40}".lstrip("."))
        return
    name = key.removesuffix("?")
    if name in value:
        check_shape(value[name], shape, f"{place}.{name}".lstrip("."))
    elif name == key:
        raise UserError(f"expected '{name}'{f' in {place}' if place else ''}, it is missing.")


def _fits(value: Any, shape: Shape) -> bool:
    try:
        check_shape(value, shape)
    except UserError:
        return False
    return True


def _check_type(value: Any, kind: Any, place: str) -> None:
    kinds = (int, float) if kind is float else type(None) if kind is None else kind
    is_number_for_truth = isinstance(value, bool) and kind in (int, float)
    if not isinstance(value, kinds) or is_number_for_truth:
        _refuse(value, _in_words(kind), place)


def _refuse(value: Any, expected: str, place: str) -> None:
    raise UserError(f"expected {expected}{f' as {place}' if place else ''}, got {value!r:.80}.")


def _in_words(shape: Shape) -> str:
    if isinstance(shape, list):
        return "a list"
    if isinstance(shape, Mapping) or shape is Mapping:
        return "an object"
    words = {str: "a text", int: "an integer", float: "a number", bool: "true or false", list: "a list", None: "null"}
    return words.get(shape, str(shape))
