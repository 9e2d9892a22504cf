"""The folder of one fold of a model, `.../fold_0`, whether the fold has been trained or not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.models.record import read_distillation_record
from nnunetv2_hlfd.plans.identity import RECORD_FILE
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json
from nnunetv2_hlfd.utilities.text import file_name

FINAL = "checkpoint_final.pth"
BEST = "checkpoint_best.pth"
LATEST = "checkpoint_latest.pth"
SUMMARY = "validation/summary.json"
_RESULTS = {"metric_per_case": [{"prediction_file": str}]}


@dataclass(frozen=True)
class FoldFolder:
    """What nnU-Net and this package write in the folder of a fold."""

    path: Path

    def file(self, name: str) -> Path:
        """A file of the fold, such as `FINAL` or `SUMMARY`."""
        return self.path / name

    def first_file(self, *names: str) -> Path | None:
        """The first of these files that is there."""
        return next((self.file(name) for name in names if self.file(name).is_file()), None)

    @property
    def is_validated(self) -> bool:
        """Whether nnU-Net has finished its validation."""
        return self.file(SUMMARY).is_file()

    def continuation(self) -> list[str]:
        """What nnUNetv2_train has to be told to go on with the fold: --val, --c, or nothing for a new start."""
        if self.first_file(FINAL):
            return ["--val"]
        return ["--c"] if self.first_file(LATEST, BEST) else []

    def record(self) -> dict[str, Any]:
        """Content of distillation.json; empty for a model of another package's trainer.

        Raises:
            UserError: for a damaged file.
        """
        return read_distillation_record(self.file(RECORD_FILE)) if self.file(RECORD_FILE).is_file() else {}

    def results(self) -> dict[str, dict[str, Any]]:
        """File name of a prediction -> what nnU-Net's evaluation has written about that case of the validation.

        Raises:
            UserError: for a missing or damaged file.
        """
        try:
            cases = read_json(self.file(SUMMARY), _RESULTS)["metric_per_case"]
        except (FileNotFoundError, UserError) as error:
            raise UserError(f"{error} Run nnUNetv2_train again with --val.") from error
        return {file_name(case["prediction_file"]): case for case in cases}


def folds_with(model: Path, file: str) -> list[str]:
    """The folds of a model folder that hold a file, by nnU-Net's rule: `all` counts only where no number does.

    Args:
        model: The model folder.
        file: Relative to the folder of a fold, such as `FINAL` or `SUMMARY`.

    Returns:
        Numbers in their order, or `all` alone, or nothing.
    """
    folds = [folder.name.removeprefix("fold_") for folder in model.glob("fold_*") if (folder / file).is_file()]
    return sorted(filter(str.isdecimal, folds), key=int) or [fold for fold in folds if fold == "all"]
