"""A procedural abdominal CT phantom with two kidneys and kidney tumors, for tests and demonstrations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from nnunetv2_hlfd.datasets.anatomy import new_scene, place_abdominal_organs, place_kidneys, place_spine_and_vessels
from nnunetv2_hlfd.datasets.scene import smooth_noise
from nnunetv2_hlfd.datasets.volumes import write_volume
from nnunetv2_hlfd.utilities.atomic import write_json

LabelMode: TypeAlias = Literal["labels", "regions", "ignore", "regions_ignore"]

_MIN_SIZE = (8, 32, 32)  # smaller kidneys have too few voxels
_TEST_SEED_OFFSET = 50_000


def _check_case(size: Sequence[int], spacing: Sequence[float], seed: int) -> tuple[int, ...]:
    if len(size) != 3 or any(int(n) != n or n < least for n, least in zip(size, _MIN_SIZE, strict=True)):
        raise ValueError(f"size must be three integers (z, y, x) of at least {_MIN_SIZE} voxels, got {tuple(size)}")
    if len(spacing) != 3 or not all(0 < s < float("inf") for s in spacing):
        raise ValueError(f"spacing must be three positive numbers (z, y, x) in mm, got {tuple(spacing)}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    return tuple(int(n) for n in size)


def simulate_case(
    size: Sequence[int], spacing: Sequence[float], seed: int
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Simulate one abdominal CT with both kidneys, at least one kidney tumor and its labels.

    The body is scaled to the in-plane field of view; along z the anatomy is compressed where the field of view is too
    short for whole kidneys. Cysts are labeled kidney, the fat of the renal sinus is background.

    Args:
        size: Voxels along (z, y, x), at least (8, 32, 32).
        spacing: Voxel spacing along (z, y, x) in mm.
        seed: Non-negative seed; the same seed, size and spacing give the same case.

    Returns:
        The volume in HU and the labels (0 background, 1 kidney, 2 tumor), both of shape ``size``.

    Raises:
        ValueError: If size, spacing or seed is out of range.
    """
    shape = _check_case(size, spacing, seed)
    scene = new_scene(shape, spacing, seed)
    place_spine_and_vessels(scene)
    labels = place_kidneys(scene)
    place_abdominal_organs(scene)
    hu = gaussian_filter(scene.hu, (0.4, 0.5, 0.5), truncate=3)
    noise = smooth_noise(scene.rng, shape, (0.4, 0.7, 0.7)) * scene.rng.uniform(9, 20)
    hu += noise * np.where(hu < -800, 0.6, 1)
    return np.clip(hu, -1024, 1500).round().astype(np.int16), labels


def _ignore_slices(labels: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Set about half of the axial slices to 3 in place, keeping a slice with tumor."""
    kept = rng.choice(np.flatnonzero((labels == 2).any(axis=(1, 2))))
    others = np.delete(np.arange(len(labels)), kept)
    labels[rng.permutation(others)[: len(labels) // 2]] = 3


def _write_image(array: npt.NDArray[Any], spacing: Sequence[float], file: Path) -> None:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in reversed(spacing)])
    write_volume(image, file)


def _dataset_description(num_training: int, label_mode: LabelMode) -> dict[str, Any]:
    regions = label_mode.startswith("regions")
    labels: dict[str, int | list[int]] = {"background": 0, "kidney": [1, 2] if regions else 1, "tumor": 2}
    if label_mode.endswith("ignore"):
        labels["ignore"] = 3
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": num_training}
    regions_order = {"regions_class_order": [1, 2]} if regions else {}
    return description | regions_order | {"file_ending": ".nii.gz"}


def write_phantom_dataset(
    folder: Path,
    *,
    num_training: int,
    num_test: int = 0,
    size: Sequence[int] = (48, 128, 128),
    spacing: Sequence[float] = (4.0, 2.8, 2.8),
    seed: int = 0,
    label_mode: LabelMode = "labels",
) -> Path:
    """Write an nnU-Net raw data set of simulated cases: imagesTr, labelsTr, imagesTs, labelsTs and dataset.json.

    Args:
        folder: Target named ``DatasetXXX_Name``; created, must be new or empty.
        num_training: Number of training cases, at least 1.
        num_test: Number of test cases, numbered after the training cases.
        size: Voxels along (z, y, x), at least (8, 32, 32).
        spacing: Voxel spacing along (z, y, x) in mm.
        seed: Non-negative seed of the data set; other seeds give other cases.
        label_mode: ``labels`` for plain labels, ``regions`` for kidney including tumor as a region, ``ignore`` for the
            ignore label 3 on about half of the slices of each training case, ``regions_ignore`` for both.

    Returns:
        ``folder``.

    Raises:
        FileExistsError: If the folder has contents.
        ValueError: If the folder name or another argument is not as described.
    """
    folder = Path(folder)
    if not re.fullmatch(r"Dataset\d{3}_.+", folder.name):
        raise ValueError(f"folder must be named DatasetXXX_Name, for example Dataset019_Phantom, got {folder.name!r}")
    if num_training < 1 or num_test < 0:
        raise ValueError(f"need num_training >= 1 and num_test >= 0, got {num_training} and {num_test}")
    if label_mode not in get_args(LabelMode):
        raise ValueError(f"label_mode must be one of {', '.join(get_args(LabelMode))}, got {label_mode!r}")
    _check_case(size, spacing, seed)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"folder must be new or empty, got {folder}; delete it or choose another name")
    for index in tqdm(range(num_training + num_test), desc=f"Simulating {folder.name}", unit="case", disable=None):
        is_test = index >= num_training
        case_seed = seed * 100_003 + (index - num_training + _TEST_SEED_OFFSET if is_test else index)
        image, labels = simulate_case(size, spacing, case_seed)
        if label_mode.endswith("ignore") and not is_test:
            _ignore_slices(labels, np.random.default_rng((case_seed, 1)))
        split = "Ts" if is_test else "Tr"
        _write_image(image, spacing, folder / f"images{split}" / f"case_{index:03d}_0000.nii.gz")
        _write_image(labels, spacing, folder / f"labels{split}" / f"case_{index:03d}.nii.gz")
    write_json(folder / "dataset.json", _dataset_description(num_training, label_mode))
    return folder
