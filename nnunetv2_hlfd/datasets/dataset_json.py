"""nnU-Net's dataset.json, which names labels, channels and the ending of files."""

import re
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json

_DATASET = {
    "labels": {str: (int, str, [(int, str)])},  # nnU-Net reads numbers in quotes, too
    "file_ending": str,
    "channel_names?": {str: str},
    "modality?": {str: str},  # of nnU-Net v1
    "regions_class_order?": (None, [int]),
    "numTraining?": int,
    "overwrite_image_reader_writer?": (None, str),
}
_ENDING = re.compile(r"(\.\w{1,10}){1,3}")
_HIGHEST_LABEL = 2**16 - 1


def read_dataset_json(file: Path) -> dict[str, Any]:
    """Read a dataset.json.

    Raises:
        UserError: for a damaged file, labels that are none, or a file ending that would lead to another folder.
        FileNotFoundError: where there is none.
    """
    content: dict[str, Any] = read_json(file, _DATASET)
    if not _ENDING.fullmatch(content["file_ending"]):
        raise UserError(
            f"{file} is damaged: expected a file_ending such as .nii.gz, got {content['file_ending']!r:.80}."
        )
    for name, value in content["labels"].items():
        for label in value if isinstance(value, list) else [value]:
            if not str(label).isdecimal() or int(label) > _HIGHEST_LABEL:
                raise UserError(f"{file} is damaged: expected a number for label {name!r:.80}, got {value!r:.80}.")
    return content
