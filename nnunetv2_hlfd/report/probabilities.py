"""The probabilities that nnU-Net writes beside the label maps of a validation (--npz)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_hlfd.report.case_files import is_there
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.report.target import Target
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage


def check_probabilities(models: Sequence[Model], folds: Sequence[int], option: str) -> None:
    """Every prediction and its probabilities are there.

    Raises:
        UserError: naming the option that needs them, a missing file, and the command that makes those of its fold.
    """
    for model in models:
        cases = model.cases[model.cases["fold"].isin(folds)].drop_duplicates("case")
        for fold, prediction in zip(cases["fold"], map(Path, cases["prediction"]), strict=True):
            files = (prediction, probabilities_file(prediction))
            missing = next((file for file in files if not is_there(file)), None)
            if missing:
                raise UserError(
                    f"{option} needs {missing}, found none. Make the fold's probabilities with: "
                    f"{model.folder.train_command(fold, '--val', '--npz')}"
                )


def probabilities_file(prediction: Path) -> Path:
    """Where nnU-Net writes them: beside the label map, whose name may have dots."""
    return prediction.with_name(prediction.name.removesuffix(".gz")).with_suffix(".npz")


def read_probabilities(file: Path, targets: Sequence[Target], shape: tuple[int, ...]) -> list[Any]:
    """Those of each label, axes as in the label map.

    Args:
        file: of nnU-Net.
        targets: the labels.
        shape: that is expected.

    Raises:
        UserError: for a damaged file, or another shape.
    """
    try:
        with refuse_damage(file), np.load(file, allow_pickle=False) as archive:
            channels = archive["probabilities"]
            probabilities = [channels[target.channel] for target in targets]
    except ValueError as error:  # NumPy's own do not name the file
        raise UserError(f"{file} is damaged: {error}") from error
    if probabilities[0].shape != shape:
        raise UserError(f"Expected probabilities of shape {shape} in {file}, got {probabilities[0].shape}.")
    return probabilities
