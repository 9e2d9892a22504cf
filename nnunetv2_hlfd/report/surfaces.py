"""`--surfaces`: how far the borders of prediction and truth lie apart (normalized surface Dice, HD95), by MONAI."""

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from nnunetv2_hlfd.report.arms import Arm, reference_of
from nnunetv2_hlfd.report.bootstrap import Bootstrap
from nnunetv2_hlfd.report.case_files import CaseFiles, Mask, label_mask, list_case_files, map_cases
from nnunetv2_hlfd.report.formatting import format_interval, format_spread
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.report.page import Section, Table
from nnunetv2_hlfd.report.paired import PairedValues
from nnunetv2_hlfd.report.summary import MEAN
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.optional_packages import needed

_PERCENTILE = 95
_MEASURES = {"surface_dice": 1, "hd95": math.inf}  # and the largest difference that there can be


def check_surfaces(models: Sequence[Model], folds: Sequence[int]) -> None:
    """MONAI and the label maps of every case are there.

    Raises:
        UserError: naming what is missing.
    """
    needed("monai.metrics", "surfaces")
    _, missing = list_case_files(models, folds)
    if missing:
        raise UserError(f"--surfaces needs the label maps of every case. {missing[0]}")


def measure_surfaces(models: Sequence[Model], folds: Sequence[int], tolerance: float) -> pd.DataFrame:
    """Measure every case and label, and the mean over the labels of a case.

    Returns:
        A row for each run, case and label: surface_dice (Nikolov et al. 2021), the share of both borders that lies
        within `tolerance` mm of the other one, and hd95, the larger one of the two 95th percentiles of the distance to
        the other border in mm. Without the label in truth and prediction 1 and 0 mm; with it in one of them alone 0 and
        the diagonal of the image, the largest possible distance.
    """
    cases, _ = list_case_files(models, folds)
    table = pd.DataFrame(map_cases(functools.partial(_measure_case, tolerance=tolerance), cases, "surfaces"))
    if table["label"].nunique() == 1:
        return table
    means = table.groupby(["run", "case"], sort=False)[list(_MEASURES)].mean().reset_index().assign(label=MEAN)
    return pd.concat([means, table], ignore_index=True)


def surfaces_section(measured: pd.DataFrame, arms: Sequence[Arm], tolerance: float) -> Section:
    """Means of each arm and label, and the differences to its student alone.

    Args:
        measured: by `measure_surfaces`.
        arms: the teacher first.
        tolerance: that was measured with, in mm.
    """
    bootstrap = Bootstrap(measured["case"].nunique())
    rows = [
        row
        for label in measured["label"].unique()
        for row in _rows(
            [PairedValues(measured, label, name, arms, bootstrap, limit) for name, limit in _MEASURES.items()], arms
        )
    ]
    head = [
        "Label",
        "Arm",
        "Compared with",
        "Runs",
        f"Surface Dice, {tolerance:g} mm",
        "Difference",
        "HD95, mm",
        "Difference",
    ]
    return Section(
        title="Borders",
        content=[Table(head=head, rows=rows, num_names=3)],
        note=f"Surface Dice: the share of both borders that lies within {tolerance:g} mm of the other one. HD95: the "
        "larger one of the two 95th percentiles of the distance to the other border; smaller is better. A case "
        "without the label in truth and prediction has 1 and 0 mm; with it in one of them alone 0 and the diagonal of "
        "its image. Images without a size in mm count in pixels. Means and 95 % intervals as those of Dice.",
    )


def _rows(measures: Sequence[PairedValues], arms: Sequence[Arm]) -> list[list[str]]:
    rows = []
    for arm in arms:
        alone = reference_of(arm, arms[1:])
        cells = [measures[0].label, arm.name, alone.name if alone else "-", str(len(arm.models))]
        for values, digits in zip(measures, (3, 1), strict=True):
            cells.append(format_spread(*values.spread(arm), digits=digits))
            cells.append(format_interval(values.difference(arm, alone), digits) if alone else "-")
        rows.append(cells)
    return rows


def _measure_case(files: CaseFiles, tolerance: float) -> list[dict[str, Any]]:
    reference, spacing = files.read_with_spacing(files.reference)
    valid = files.valid(reference)
    rows = []
    for run, file in files.predictions.items():
        segmentation = files.read(file)
        for name, value in files.labels.items():
            predicted, truth = (label_mask(labels, value, valid) for labels in (segmentation, reference))
            surface_dice, hd95 = _compare(predicted, truth, spacing, tolerance)
            rows.append({"run": run, "case": files.case, "label": name, "surface_dice": surface_dice, "hd95": hd95})
    return rows


def _compare(predicted: Mask, truth: Mask, spacing: Sequence[float], tolerance: float) -> tuple[float, float]:
    """Surface Dice and HD95."""
    if not predicted.any() and not truth.any():
        return 1.0, 0.0
    if not predicted.any() or not truth.any():
        return 0.0, float(np.linalg.norm(np.multiply(truth.shape, spacing)))
    if len(truth) == 1:  # a border of a single slice is a line
        predicted, truth, spacing = predicted[0], truth[0], spacing[1:]
    metrics = needed("monai.metrics", "surfaces")
    one_hot = [torch.from_numpy(mask)[None, None] for mask in (predicted, truth)]
    options = {"include_background": True, "spacing": [float(size) for size in spacing]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's, about itself
        surface_dice = metrics.compute_surface_dice(*one_hot, [tolerance], use_subvoxels=True, **options)
        hd95 = metrics.compute_hausdorff_distance(*one_hot, percentile=_PERCENTILE, **options)
    return float(surface_dice), float(hd95)
