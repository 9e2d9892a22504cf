"""What a model's training images were like, as far as nnU-Net's files and the raw data set tell."""

import os
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from nnunetv2_hlfd.deploy.runtime.orientation import of_affine, of_direction
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.utilities.json_file import read_json, refuse_damage

FINGERPRINT = "dataset_fingerprint.json"
SpacingRange = tuple[tuple[float, float], ...]


def spacing_range(folder: Path, plans: Mapping[str, Any]) -> SpacingRange:
    """Least and largest spacing of the training images in mm, for each axis of nnU-Net's arrays (z, y, x).

    From the fingerprint; without one, the median of the plans stands for both. Empty where neither is there.

    Args:
        folder: of the model.
        plans: content of its plans.json.

    Raises:
        UserError: for damaged files.
    """
    fingerprint = folder / FINGERPRINT
    if fingerprint.is_file():
        with refuse_damage(fingerprint):
            spacings = np.array(read_json(fingerprint)["spacings"], float).reshape(-1, 3)
            return tuple(zip(spacings.min(0).tolist(), spacings.max(0).tolist(), strict=True))
    if "original_median_spacing_after_transp" not in plans:
        return ()
    with refuse_damage(folder / "plans.json"):
        median = np.array(plans["original_median_spacing_after_transp"], float)[list(plans["transpose_backward"])]
        return tuple((size, size) for size in median.tolist())


def training_orientations(model: ModelFolder) -> dict[str, int]:
    """Orientation, such as LPS -> number of training images whose voxel axes lie so; empty where nobody can know.

    nnU-Net does not record it: it is read from the headers in nnUNet_raw, where the data set is there.

    Raises:
        UserError: for plans that name no reader.
    """
    root = os.environ.get("nnUNet_raw")
    with refuse_damage(model.path / "plans.json"):
        reader = str(model.plans.plans["image_reader_writer"])
    if not root or not reader.startswith(("SimpleITK", "Nibabel")):
        return {}
    return dict(_orientations(Path(root) / model.plans.dataset_name / "imagesTr", model.file_ending, reader))


@cache
def _orientations(folder: Path, ending: str, reader: str) -> Counter[str]:
    read = _by_nibabel if reader.startswith("Nibabel") else _by_itk
    found = (read(file) for file in folder.glob(f"*_0000{ending}"))
    return Counter(sorted(orientation for orientation in found if orientation))


def _by_itk(file: Path) -> str | None:
    header = SimpleITK.ImageFileReader()
    header.SetFileName(str(file))
    try:
        header.ReadImageInformation()
    except RuntimeError:
        return None
    return of_direction(header.GetDirection())


def _by_nibabel(file: Path) -> str | None:
    import nibabel

    try:
        return of_affine(nibabel.load(file).affine)
    except Exception:  # nibabel raises many kinds
        return None
