"""distillation.json, what this package's trainers write about a training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.utilities.json_file import read_json
from nnunetv2_hlfd.utilities.json_shape import Shape

_SETTINGS: Shape = {str: (None, bool, float, str, {str: float})}
_NETWORK = {
    "folder?": str,
    "checkpoint?": str,
    "sha256?": str,
    "may_have_seen_validation_cases?": bool,
}
_RECORD = {
    "settings?": _SETTINGS,
    "given?": _SETTINGS,
    "versions?": {str: str},
    "student?": {str: float},
    "teacher?": {"networks?": [_NETWORK]},
    "initial_weights?": _NETWORK,
    "method?": {"title?": str, "weights?": {str: float}},
}


def read_distillation_record(path: Path) -> dict[str, Any]:
    """Read a distillation.json; records of earlier versions may lack keys.

    Raises:
        UserError: for a damaged file.
        FileNotFoundError: where there is none.
    """
    record: dict[str, Any] = read_json(path, _RECORD)
    return record


def source_networks(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the teacher's networks in a distillation.json, and the one whose weights the training was started with."""
    networks = list(record.get("teacher", {}).get("networks", []))
    return [*networks, record["initial_weights"]] if "initial_weights" in record else networks
