"""Segmentations of a case as contours over its image, on the image's own grid: what nnU-Net wrote and evaluated."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from nnunetv2.evaluation.evaluate_predictions import region_or_label_to_mask

from nnunetv2_hlfd.losses.resize import resize
from nnunetv2_hlfd.report.arms import Arm
from nnunetv2_hlfd.report.case_files import Mask, find_reference, is_there, label_map_reader
from nnunetv2_hlfd.report.cases import LabelValue
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.report.patches import lesion_center
from nnunetv2_hlfd.report.target import Target
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage

Image = npt.NDArray[np.float32]

TRUTH_COLOR, PREDICTION_COLOR = "#3ddc5b", "#ff4fd8"
_COLUMNS = 6
_WIDTH, _LETTERS = 2.1, 28  # inches of a panel, letters of its title


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """One slice of a case.

    Attributes:
        predictions: name of the arm, mask, Dice of the whole case.
        aspect: height of a pixel over its width.
    """

    image: Image
    truth: Mask
    predictions: Sequence[tuple[str, Mask, float]]
    aspect: float


def read_overlay(case: str, arms: Sequence[Arm], target: Target, preprocessed: Any) -> Overlay:
    """Read the slice with most of the true label.

    The image is the first channel of the preprocessed case, brought back to the grid of the label maps: raw images
    may have moved, and this is what the networks saw.

    Args:
        case: its name.
        arms: the first run of each is shown.
        target: the label.
        preprocessed: nnU-Net's preprocessed cases of the first arm's first run.

    Raises:
        UserError: naming a missing or damaged file.
    """
    model = arms[0].models[0]
    plans = model.folder.plans
    firsts = [arm.models[0] for arm in arms]
    reference, source = find_reference([(_row(run, case, target)["reference"], run) for run in firsts])
    truth = _read_mask(reference, label_map_reader(source, model), plans.transpose_forward, target.value)
    if not truth.any():
        raise UserError(f"Expected {target.name} in {reference}, where the evaluation has counted it, found none.")
    index = lesion_center(truth)[0]
    with refuse_damage(f"{preprocessed.source_folder}/{case}"):
        data, _, _, properties = preprocessed.load_case(case)
        image = original_slice(data, properties, index, truth.shape)
        spacing = [float(properties["spacing"][axis]) for axis in plans.transpose_forward]
    predictions = []
    for arm in arms:
        row = _row(arm.models[0], case, target)
        reader = label_map_reader(arm.models[0], model)
        mask = _read_mask(Path(row["prediction"]), reader, plans.transpose_forward, target.value)
        if mask.shape != truth.shape:
            raise UserError(f"Expected a label map of shape {truth.shape} in {row['prediction']}, got {mask.shape}.")
        predictions.append((arm.name, mask[index], float(row["dice"])))
    return Overlay(image=image, truth=truth[index], predictions=predictions, aspect=spacing[1] / spacing[2])


def draw_overlay(overlay: Overlay, label: str) -> Figure:
    """The image, the truth, and every arm's segmentation with its Dice, around the label."""
    window = _window([overlay.truth, *(mask for _, mask, _ in overlay.predictions)])
    panels: list[tuple[str, Mask | None, Mask | None]] = [("image", None, None), ("ground truth", overlay.truth, None)]
    panels += [
        (f"{fill(name, _LETTERS)}\nDice {dice:.2f}", overlay.truth, mask) for name, mask, dice in overlay.predictions
    ]
    rows = math.ceil(len(panels) / _COLUMNS)
    columns = math.ceil(len(panels) / rows)
    extent = overlay.image[window].shape
    height = _WIDTH * min(max(overlay.aspect * extent[0] / extent[1], 0.5), 2)
    figure = Figure(figsize=(_WIDTH * columns, (height + 0.5) * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in grid:
        axis.set_axis_off()
    for axis, (title, truth, prediction) in zip(grid, panels, strict=False):
        show_gray(axis, overlay.image, overlay.aspect, window)
        for mask, color in ((truth, TRUTH_COLOR), (prediction, PREDICTION_COLOR)):
            if mask is not None:
                show_contour(axis, mask[window], color)
        axis.set_title(title, fontsize=8)
    lines = [Line2D([], [], color=TRUTH_COLOR), Line2D([], [], color=PREDICTION_COLOR)]
    figure.legend(
        lines, [f"{label}: ground truth", "segmentation"], loc="outside lower left", ncols=2, fontsize=8, frameon=False
    )
    return figure


def show_gray(axis: Axes, image: Image, aspect: float, window: tuple[slice, ...] = (slice(None),)) -> None:
    """A window of an image in gray, the darkest and the brightest percent of the image cut off."""
    low, high = np.percentile(image, (1, 99))
    axis.imshow(
        image[window], cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect, interpolation="nearest"
    )


def show_contour(axis: Axes, mask: Mask, color: str) -> None:
    """The outline of a mask; nothing where it has none."""
    if mask.any() and not mask.all():
        axis.contour(mask, levels=[0.5], colors=[color], linewidths=1.2)


def _row(model: Model, case: str, target: Target) -> pd.Series:
    table = model.cases
    return table[(table["case"] == case) & (table["label"] == target.name)].iloc[0]


def _read_mask(file: Path, reader: Any, transpose: Sequence[int], value: LabelValue) -> Mask:
    """A label's voxels, axes as nnU-Net processes them: slices first."""
    if not is_there(file):
        raise UserError(
            f"--pictures needs the label map {file}, found none. nnUNetv2_train ... --val makes those of a validation."
        )
    with refuse_damage(file):
        mask: Mask = region_or_label_to_mask(reader.read_seg(str(file))[0][0], value).transpose(transpose)
    return mask


def original_slice(data: Any, properties: dict[str, Any], index: int, shape: tuple[int, ...]) -> Image:
    """A slice of the preprocessed image (C, *spatial), nearest to that of the original, which it is resized to."""
    box = [slice(*bounds) for bounds in properties["bbox_used_for_cropping"]]
    size = properties["shape_after_cropping_and_before_resampling"]
    place = (index - box[0].start + 0.5) * data.shape[1] / size[0] - 0.5
    nearest = min(max(round(place), 0), data.shape[1] - 1)
    image = np.asarray(data[0, nearest], dtype=np.float32)
    resized = resize(torch.from_numpy(image)[None, None], [int(extent) for extent in size[1:]])[0, 0].numpy()
    whole = np.full(shape[1:], resized.min(), dtype=np.float32)
    whole[box[1], box[2]] = resized
    return whole


def _window(masks: Sequence[Mask]) -> tuple[slice, slice]:
    """The square around what any mask has, with a margin of half its extent, a quarter of the image at least."""
    union = np.any(masks, axis=0)
    found = [np.flatnonzero(union.any(axis=other)) for other in (1, 0)]
    extent = max(int(2 * max(indices[-1] - indices[0] + 1 for indices in found)), max(union.shape) // 4)
    window = []
    for indices, size in zip(found, union.shape, strict=True):
        start = min(max((int(indices[0]) + int(indices[-1]) - extent) // 2, 0), max(size - extent, 0))
        window.append(slice(start, start + extent))
    return window[0], window[1]
