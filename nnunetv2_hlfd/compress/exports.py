"""The student as files that leave the machine: for stock nnU-Net, and for machines without torch."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.compress.places import Places
from nnunetv2_hlfd.deploy.export import export_nnunet
from nnunetv2_hlfd.deploy.network_export import PROGRAM, DiceDropError, Options, export_openvino
from nnunetv2_hlfd.deploy.provenance import Licenses
from nnunetv2_hlfd.deploy.source import read_source
from nnunetv2_hlfd.models.fold import FINAL
from nnunetv2_hlfd.utilities.atomic import write_json
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json

_VARIABLES = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed"}


def export_for_nnunet(places: Places, licenses: Licenses) -> None:
    """Write the zip that stock nnU-Net installs and predicts with."""
    shutil.rmtree(places.export, ignore_errors=True)
    with _data_of(places):
        export_nnunet(read_source(places.student(), ["0"], FINAL), places.export, licenses=licenses)


def export_for_openvino(places: Places, max_dice_drop: float, licenses: Licenses) -> None:
    """Write the student in 8 bits, or in float32 where 8 bits cost too much Dice, and `outcome.json`.

    What cannot be exported, or for lack of a package, is said in `outcome.json` and stops nothing.
    """
    shutil.rmtree(places.export_openvino, ignore_errors=True)
    source = read_source(places.student(), ["0"], FINAL)
    outcome: dict[str, Any] = {"precision": None, "reason": None}
    try:
        with _data_of(places):
            try:
                eight_bits = Options(int8=True, max_dice_drop=max_dice_drop, licenses=licenses)
                export_openvino(source, places.export_openvino, eight_bits)
                outcome["precision"] = "8 bits"
            except DiceDropError as error:
                export_openvino(source, places.export_openvino, Options(licenses=licenses))
                outcome |= {"precision": "float32", "reason": str(error)}
    except UserError as error:
        outcome["reason"] = str(error)
        print(f"      not exported: {error}")
    places.export_openvino.mkdir(exist_ok=True)
    write_json(places.quantized, outcome)


def read_outcome(places: Places) -> dict[str, Any]:
    """`precision`, None where nothing was exported, and the `reason` why it is not 8 bits."""
    return read_json(places.quantized)


def find_program(places: Places) -> Path | None:
    """The `predict.pyz` of the export, where there is one."""
    program = places.small_model / PROGRAM
    return program if program.is_file() else None


@contextmanager
def _data_of(places: Places) -> Iterator[None]:
    """Let the environment name the folders of the student's data: for 8 bits, and for the model card."""
    before = {variable: os.environ.get(variable) for variable in _VARIABLES}
    os.environ.update({variable: str(places.folder / name) for variable, name in _VARIABLES.items()})
    try:
        yield
    finally:
        for variable, value in before.items():
            os.environ.pop(variable)
            if value is not None:
                os.environ[variable] = value
