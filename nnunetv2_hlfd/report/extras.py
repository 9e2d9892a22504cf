"""What a report holds on request only: pictures, borders, calibration, and the paper's evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from nnunetv2_hlfd.report.arms import Arm
from nnunetv2_hlfd.report.calibration import calibration_section, measure_calibration
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.report.page import Section
from nnunetv2_hlfd.report.paper_evaluation import measure_paper_evaluation, paper_section
from nnunetv2_hlfd.report.pictures import check_pictures, make_pictures, picture_sections
from nnunetv2_hlfd.report.probabilities import check_probabilities
from nnunetv2_hlfd.report.surfaces import check_surfaces, measure_surfaces, surfaces_section
from nnunetv2_hlfd.report.target import choose_target


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What to add.

    Attributes:
        pictures: the label to show, "" for the last of dataset.json; None for no pictures.
        paper_evaluation: the label to evaluate as the paper does, likewise.
        surfaces: mm by which borders may lie apart; None: they are not measured.
        calibration: whether to measure it.
        device: where networks run for pictures.
    """

    pictures: str | None = None
    paper_evaluation: str | None = None
    surfaces: float | None = None
    calibration: bool = False
    device: str = "cpu"


def check_extras(models: Sequence[Model], folds: Sequence[int], extras: Extras) -> None:
    """Refuse what cannot be made, before anything is measured.

    Raises:
        UserError: naming what is missing and how to mend it.
    """
    if extras.pictures is not None:
        check_pictures(models, folds, extras.pictures, extras.device)
    if extras.paper_evaluation is not None:
        choose_target(models[0], extras.paper_evaluation)
        check_probabilities(models, folds, "--paper_evaluation")
    if extras.calibration:
        check_probabilities(models, folds, "--calibration")
    if extras.surfaces is not None:
        check_surfaces(models, folds)


def make_extras(
    arms: Sequence[Arm], folds: Sequence[int], cases: pd.DataFrame, extras: Extras
) -> tuple[list[Section], dict[str, pd.DataFrame]]:
    """Sections of the page, and tables by the name of their CSV file.

    Args:
        arms: the teacher first.
        folds: to look at.
        cases: of the summary.
        extras: what to make.

    Raises:
        UserError: for missing or damaged files.
    """
    sections: list[Section] = []
    tables = {}
    models = [model for arm in arms for model in arm.models]
    if extras.surfaces is not None:
        tables["surfaces"] = measure_surfaces(models, folds, extras.surfaces)
        sections.append(surfaces_section(tables["surfaces"], arms, extras.surfaces))
    if extras.calibration:
        tables["calibration"] = measure_calibration(models, folds)
        sections.append(calibration_section(tables["calibration"], arms))
    if extras.paper_evaluation is not None:
        target = choose_target(models[0], extras.paper_evaluation)
        measured = measure_paper_evaluation(models, folds, target)
        sections.append(paper_section(measured, arms, target))
        tables["paper_evaluation"] = measured
    if extras.pictures is not None:
        shown = make_pictures(arms, folds, cases, extras.pictures, extras.device)
        sections += picture_sections(shown)
        tables |= {"focus": shown.focus, "focus_arms": shown.summary}
    return sections, tables
