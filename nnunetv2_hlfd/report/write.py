"""From model folders to report.md, report.html and CSV tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib import style

from nnunetv2_hlfd.report.arms import Arm, group_models
from nnunetv2_hlfd.report.costs import measure_cost, read_curves
from nnunetv2_hlfd.report.extras import Extras, check_extras, make_extras
from nnunetv2_hlfd.report.findings import Findings
from nnunetv2_hlfd.report.lesions import lesion_recall, measure_lesions
from nnunetv2_hlfd.report.models import Model, check_same_cases, read_models
from nnunetv2_hlfd.report.page import to_html, to_markdown, to_png
from nnunetv2_hlfd.report.sections import compose
from nnunetv2_hlfd.report.summary import Comparison, summarize
from nnunetv2_hlfd.report.verdict import MARGIN
from nnunetv2_hlfd.utilities.atomic import write_files
from nnunetv2_hlfd.utilities.lock import locked

_HTML = "report.html"


def write_report(
    teacher: Path,
    students: Sequence[Path],
    output: Path,
    arms: Mapping[str, Sequence[Path]] | None = None,
    extras: Extras | None = None,
    margin: float = MARGIN,
) -> Path:
    """Compare models by nnU-Net's own validation of their folds.

    Args:
        teacher: model folder TRAINER__PLANS__CONFIGURATION.
        students: model folders; those that differ in nothing but the seed are runs of one arm.
        output: folder for report.md, report.html, the pictures of report.md, and CSV tables.
        arms: names of arms and their folders, where they are to be called and grouped otherwise.
        extras: what else to show; nothing by default, which needs results and label maps alone.
        margin: of non-inferiority, in Dice.

    Returns:
        The HTML page.

    Raises:
        UserError: for folders that are no finished models, or not of the same data and cases, and extras that cannot
            be made.
    """
    models = read_models([teacher, *students])
    folds = check_same_cases(models)
    extras = extras or Extras()
    check_extras(models, folds, extras)
    with locked(output, "nnUNetv2_hlfd report"):
        write_files(output, _files(models, folds, arms, extras, margin))
    return output / _HTML


@style.context("default")  # nnU-Net's own plots leave their large fonts behind in the process
def _files(
    models: Sequence[Model],
    folds: Sequence[int],
    arms: Mapping[str, Sequence[Path]] | None,
    extras: Extras,
    margin: float,
) -> dict[str, bytes]:
    """Content of every file of the report by its name."""
    by_folder = {model.folder.path: model for model in models}
    if arms is None:
        groups = group_models(models[1:])
    else:
        groups = [Arm(name=name, models=[by_folder[path] for path in folders]) for name, folders in arms.items()]
    first = Arm(name="teacher", models=list(models[:1]))
    everyone = [first, *groups]
    summary = summarize(first, groups, folds)
    sections, tables = make_extras(everyone, folds, summary.cases, extras)
    lesions, missing = measure_lesions(models, folds)
    recall = lesion_recall(lesions)
    costs = {arm.name: measure_cost(arm.models[0]) for arm in everyone}
    curves = {arm.name: [curve for model in arm.models for curve in read_curves(model, folds)] for arm in everyone}
    found = Findings(
        teacher=first,
        students=groups,
        folds=folds,
        summary=summary,
        recall=recall,
        without_lesions=missing,
        costs=costs,
        curves={name: curves_of_arm for name, curves_of_arm in curves.items() if curves_of_arm},
        margin=margin,
        more=sections,
    )
    page = compose(found)

    files = {picture.name: to_png(picture.figure) for picture in page.pictures}
    files |= {"report.md": to_markdown(page).encode(), _HTML: to_html(page).encode()}
    tables |= tables_of(found, lesions)
    files |= {f"{name}.csv": table.to_csv(index=False).encode() for name, table in tables.items()}
    return files


def tables_of(found: Findings, lesions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables of every report by the name of their CSV file."""
    summary = found.summary
    runs = summary.runs.merge(found.recall, on=["run", "label"], how="left")
    names = {model.run: model.checkpoint_names(found.folds) for arm in found.arms for model in arm.models}
    runs["checkpoint"] = runs["run"].map({run: ", ".join(checkpoints) for run, checkpoints in names.items()})
    sizes = pd.DataFrame(
        [
            {
                "arm": name,
                "checkpoint": cost.checkpoint,
                "parameters": cost.size and cost.size.parameters,
                "macs": cost.size and cost.size.macs,
                "checkpoint_bytes": cost.checkpoint_bytes,
                "latency_seconds": cost.latency,
                "missing": cost.missing,
            }
            for name, cost in found.costs.items()
        ]
    )
    return {
        "arms": summary.arms,
        "runs": runs,
        "cases": summary.cases,
        "comparisons": _comparison_table(summary.comparisons),
        "to_teacher": _comparison_table(summary.to_teacher),
        "networks": sizes,
        "lesions": lesions,
    }


def _comparison_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                **vars(comparison),
                "difference": comparison.difference.value,
                "low": comparison.difference.low,
                "high": comparison.difference.high,
            }
            for comparison in comparisons
        ]
    )
