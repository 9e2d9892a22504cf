"""What a study file says of its report."""

from collections.abc import Mapping
from typing import Any

from nnunetv2_hlfd.study.entries import check_keys, read_mapping
from nnunetv2_hlfd.utilities.errors import UserError

_LABEL_EXTRAS = ["pictures", "paper_evaluation"]  # of a report: what looks at one label
_SURFACES = "surfaces"
_CALIBRATION = "calibration"
_MARGIN = "margin"
_TOLERANCE = 2.0  # mm


def read_extras(value: Any) -> dict[str, Any]:
    """Extras of the report: a label's name, or true for the last label; for surfaces mm, or true for 2."""
    entry = read_mapping(value, "report")
    check_keys(entry, [*_LABEL_EXTRAS, _SURFACES, _CALIBRATION, _MARGIN], "report")
    extras = {key: label for key, label in entry.items() if key in _LABEL_EXTRAS}
    for key, label in extras.items():
        if not (label is True or (isinstance(label, str) and label)):
            raise UserError(f"report: {key}: expected the name of a label, or true for the last one, got {label!r}.")
    extras = {key: "" if label is True else label for key, label in extras.items()}
    if _SURFACES in entry:
        extras[_SURFACES] = _tolerance(entry[_SURFACES])
    if _CALIBRATION in entry:
        if entry[_CALIBRATION] is not True:
            raise UserError(f"report: {_CALIBRATION}: expected true, got {entry[_CALIBRATION]!r}.")
        extras[_CALIBRATION] = True
    return extras


def read_margin(value: Mapping[str, Any]) -> float:
    """Margin of the verdict, in Dice."""
    margin = value.get(_MARGIN, 0.01)
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < 1:
        raise UserError(f"report: {_MARGIN}: expected a number from 0 to below 1, got {margin!r}.")
    return float(margin)


def _tolerance(value: Any) -> float:
    if value is True:
        return _TOLERANCE
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UserError(f"report: {_SURFACES}: expected mm above 0, or true for {_TOLERANCE:g}, got {value!r}.")
    return float(value)
