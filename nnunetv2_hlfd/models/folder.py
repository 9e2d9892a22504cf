"""A trained model folder of nnU-Net, `.../TRAINER__PLANS__CONFIGURATION`."""

from pathlib import Path


def continuation(fold_folder: Path) -> list[str]:
    """What nnUNetv2_train has to be told to go on with a fold: --val, --c, or nothing for a new start."""
    if (fold_folder / "checkpoint_final.pth").is_file():
        return ["--val"]
    if any((fold_folder / f"checkpoint_{each}.pth").is_file() for each in ("latest", "best")):
        return ["--c"]
    return []
