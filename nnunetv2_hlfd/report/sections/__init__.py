"""What a report says: one module and one line of SECTIONS for each section."""

from collections.abc import Callable

from nnunetv2_hlfd.report.findings import Findings
from nnunetv2_hlfd.report.page import Page, Section
from nnunetv2_hlfd.report.sections.comparisons import comparisons
from nnunetv2_hlfd.report.sections.conditions import conditions
from nnunetv2_hlfd.report.sections.curves import curves
from nnunetv2_hlfd.report.sections.every_case import every_case
from nnunetv2_hlfd.report.sections.networks import networks
from nnunetv2_hlfd.report.sections.results import results
from nnunetv2_hlfd.report.sections.size import size
from nnunetv2_hlfd.report.sections.verdicts import verdicts
from nnunetv2_hlfd.report.sections.warnings import warnings

SECTIONS: tuple[Callable[[Findings], list[Section]], ...] = (
    verdicts,
    size,
    conditions,
    results,
    comparisons,
    every_case,
    networks,
    curves,
)


def compose(found: Findings) -> Page:
    """Put the page together."""
    model = found.teacher.models[0]
    return Page(
        title=f"{model.folder.plans.dataset_name}, {model.folder.configuration}: teacher and students",
        warnings=warnings(found),
        sections=[*(section for make in SECTIONS for section in make(found)), *found.more],
    )
