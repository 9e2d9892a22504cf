"""Which contents have a shape, and how those that do not are refused."""

import re

import pytest

from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json
from nnunetv2_hlfd.utilities.json_shape import check_shape

SHAPE = {"name": str, "size?": float, "cases": [{"count": int}], "more?": {str: (None, [bool])}}


@pytest.mark.parametrize(
    "content",
    [
        {"name": "", "cases": []},
        {"name": "x", "size": 1, "cases": [{"count": 0, "other": []}], "more": {"a": None, "b": [True]}, "unknown": 1},
    ],
)
def test_other_keys_are_allowed(content):
    check_shape(content, SHAPE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 5}, "expected a text as name, got 5."),
        ({"size": True}, "expected a number as size, got True."),
        ({"size": None}, "expected a number as size, got None."),
        ({"cases": {}}, "expected a list as cases, got {}."),
        ({"cases": [{}, {}]}, "expected 'count' in cases[0], it is missing."),
        ({"cases": [{"count": 1.0}]}, "expected an integer as cases[0].count, got 1.0."),
        ({"more": {"a": [1]}}, "expected null or a list as more.a, got [1]."),
        ({"more": []}, "expected an object as more, got []."),
    ],
)
def test_the_place_of_what_is_wrong_is_named(change, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        check_shape({"name": "x", "cases": [], **change}, SHAPE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "Expecting property name"),
        (b"[]", "expected an object, got []."),
        (b"\xff\xfe", "can't decode byte"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a": ' + b"[" * 49 + b"]" * 49 + b"}", ""),
        (b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}", "more than 50 levels, one inside the other"),
        (b"[" * 10**6, "recursion"),
        (b'{"a": 1000000000000000000}', "an integer of 19 digits"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, message):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    if not message:
        assert read_json(file)
        return
    with pytest.raises(UserError, match=f"^{re.escape(str(file))} is damaged: .*{re.escape(message)}"):
        read_json(file)
