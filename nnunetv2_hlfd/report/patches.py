"""The patch of a preprocessed validation case that holds its lesion, as the network sees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nnunetv2.evaluation.evaluate_predictions import region_or_label_to_mask
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from torch import Tensor

from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.plans.plans_check import check_folder_name
from nnunetv2_hlfd.report.cases import LabelValue
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One patch of a configuration's size.

    Attributes:
        data: (1, C, *patch_size), the network's input.
        lesion: (*patch_size), the true label.
        valid: (*patch_size), False where the truth is the ignore label.
        shown: index of the slice that pictures show; None in 2d.
    """

    data: Tensor
    lesion: Tensor
    valid: Tensor
    shown: int | None


def open_cases(model: ModelFolder) -> Any:
    """nnU-Net's preprocessed cases of a model's configuration.

    Raises:
        UserError: where they are not on this machine, or for a cascade, whose input is more than the image.
    """
    from nnunetv2.paths import nnUNet_preprocessed

    configuration = model.configuration_manager
    if configuration.previous_stage_name is not None:
        raise UserError(
            f"--pictures are not available for cascades, {model.path} is one: its input is a previous stage's too."
        )
    if not nnUNet_preprocessed:
        raise UserError("--pictures needs the preprocessed data. Set the environment variable nnUNet_preprocessed.")
    name = configuration.data_identifier
    check_folder_name("data_identifier", name, model.path / "plans.json")
    folder = Path(str(nnUNet_preprocessed)) / model.plans.dataset_name / name
    if not folder.is_dir():
        raise UserError(
            f"--pictures needs the preprocessed data of {model.path}: expected {folder}. Set the environment "
            f"variable nnUNet_preprocessed, or make them with nnUNetv2_preprocess."
        )
    with refuse_damage(folder):
        return infer_dataset_class(str(folder))(str(folder))


def check_cases(dataset: Any, cases: Sequence[str]) -> None:
    """Refuse cases that are not preprocessed.

    Raises:
        UserError: naming the first and the folder.
    """
    missing = sorted(set(cases) - set(dataset.identifiers))
    if missing:
        raise UserError(
            f"--pictures needs the preprocessed data of every validation case: {missing[0]} is not in "
            f"{dataset.source_folder}."
        )


def read_patch(dataset: Any, case: str, value: LabelValue, ignore: int | None, patch_size: Sequence[int]) -> Patch:
    """Read the patch around the lesion: the slice with most of it, centered on its centroid there.

    The patch is moved inside the image; where the image is smaller it is padded with zeros, as nnU-Net predicts.
    Nothing but the patch is read of the image.

    Args:
        dataset: from `open_cases`.
        case: its name.
        value: of the label, or values of the region.
        ignore: the ignore label.
        patch_size: 2 or 3 extents.
    """
    with refuse_damage(f"{dataset.source_folder}/{case}"):
        image, segmentation, _, _ = dataset.load_case(case)
        labels = np.asarray(segmentation[0])
        lesion: Mask = region_or_label_to_mask(labels, value)
        valid: Mask = np.ones(labels.shape, dtype=bool) if ignore is None else labels != ignore
        center = lesion_center(lesion)
        size = patch_size if len(patch_size) == 3 else (1, *patch_size)
        windows = [_window(*axis) for axis in zip(center, size, labels.shape, strict=True)]
        inside, padding = tuple(inner for inner, _ in windows), [outer for _, outer in windows]
        data = np.pad(np.asarray(image[(slice(None), *inside)], dtype=np.float32), [(0, 0), *padding])
        masks = [np.pad(lesion[inside], padding), np.pad(valid[inside], padding, constant_values=True)]
    if len(patch_size) == 2:
        data, masks, shown = data[:, 0], [mask[0] for mask in masks], None
    else:
        shown = center[0] - inside[0].start + padding[0][0]
    return Patch(
        data=torch.from_numpy(data)[None],
        lesion=torch.from_numpy(masks[0]),
        valid=torch.from_numpy(masks[1]),
        shown=shown,
    )


def lesion_center(lesion: Mask) -> tuple[int, ...]:
    """The slice (first axis) with most of a mask, the first of several, and the centroid there; else the middle."""
    if not lesion.any():
        return tuple(extent // 2 for extent in lesion.shape)
    index = int(np.argmax(lesion.sum(axis=(1, 2))))
    row, column = np.argwhere(lesion[index]).mean(axis=0).round().astype(int).tolist()
    return index, row, column


def _window(center: int, size: int, extent: int) -> tuple[slice, tuple[int, int]]:
    """What of an axis to read, and how much to pad before and after."""
    start = min(max(center - size // 2, 0), max(extent - size, 0))
    before = max(size - extent, 0) // 2
    return slice(start, start + min(size, extent)), (before, max(size - extent, 0) - before)
