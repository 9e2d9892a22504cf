"""What is deployed of a trained model: which of its folds, by which of their checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from nnunetv2_hlfd.models.fold import folds_with
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.utilities.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model and its folds, such as 0 or all, each with a checkpoint of the same name."""

    model: ModelFolder
    folds: Sequence[str]
    checkpoint: str

    def file(self, fold: str) -> Path:
        """The checkpoint of a fold."""
        return self.model.fold(fold).file(self.checkpoint)

    def network(self, fold: str) -> nn.Module:
        """The network of a fold for prediction, without deep supervision, in eval mode."""
        return self.model.network(self.file(fold))


def read_source(path: Path, folds: Sequence[str] | None, checkpoint: str) -> Source:
    """Read and check a model folder; what it is, its first fold says, as in nnU-Net.

    Args:
        path: The model folder.
        folds: Such as 0 or all; unset: all that have the checkpoint.
        checkpoint: File in the folder of a fold.

    Raises:
        UserError: for a folder that is no model or lacks a fold, or damaged files.
    """
    folds = list(folds) if folds else folds_with(path, checkpoint)
    if not folds:
        model = ModelFolder.open(path)
        others = sorted({file.name for file in model.path.glob("fold_*/checkpoint_*.pth")})
        found = f"only {', '.join(others)}" if others else "none"
        raise UserError(
            f"Expected folds with {checkpoint} in {model.path}, found {found}. Name another file with -chk."
        )
    for fold in folds:
        if not (file := path / f"fold_{fold}" / checkpoint).is_file():
            there = ", ".join(folds_with(path, checkpoint)) or "none"
            raise UserError(f"Expected {file}, found none. Folds with {checkpoint} (-f): {there}.")
    models = [ModelFolder.open(path, path / f"fold_{fold}" / checkpoint) for fold in folds]
    return Source(model=models[0], folds=folds, checkpoint=checkpoint)
