"""What a report says, section by section."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from nnunetv2_hlfd.models.fold import source_networks
from nnunetv2_hlfd.report.arms import Arm, student_alone
from nnunetv2_hlfd.report.costs import Cost, Curve, machine
from nnunetv2_hlfd.report.formatting import format_interval, format_number, format_p, format_spread
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.report.page import Page, Picture, Section, Table
from nnunetv2_hlfd.report.plots import draw_cases, draw_curves, draw_size
from nnunetv2_hlfd.report.statistics import LEAST_GAP, RESAMPLES
from nnunetv2_hlfd.report.summary import MEAN, Comparison, Gap, Summary

_FEW_CASES = 30
_BYTES_PER_PARAMETER = 4  # fp32


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that was measured."""

    teacher: Arm
    students: Sequence[Arm]
    folds: Sequence[int]
    summary: Summary
    recall: pd.DataFrame
    without_lesions: Sequence[str]
    costs: Mapping[str, Cost]
    curves: Mapping[str, Sequence[Curve]]
    more: Sequence[Section] = ()

    @property
    def arms(self) -> list[Arm]:
        """The teacher first."""
        return [self.teacher, *self.students]

    @property
    def main_label(self) -> str:
        """What pictures show: the only label, or the mean of all."""
        labels = list(self.teacher.models[0].labels)
        return labels[0] if len(labels) == 1 else MEAN


def compose(found: Findings) -> Page:
    """Put the page together."""
    model = found.teacher.models[0]
    sections = [
        _conditions(found),
        *_results(found),
        *_comparisons(found),
        _networks(found),
        *_pictures(found),
        *found.more,
    ]
    title = f"{model.folder.plans.dataset_name}, {model.folder.configuration}: teacher and students"
    return Page(title=title, warnings=_warnings(found), sections=sections)


def _warnings(found: Findings) -> list[str]:
    warnings = []
    seen = [arm.name for arm in found.students if any(map(_may_have_seen, arm.models))]
    if seen:
        warnings.append(f"The teacher of {', '.join(seen)} may have seen validation cases: these results mean little.")
    num_cases, seeds = _num_cases(found), min(len(arm.models) for arm in found.students)
    if num_cases < _FEW_CASES:
        warnings.append(f"{num_cases} cases cannot carry a conclusion about a method. Add the other folds.")
    if seeds < 2:
        warnings.append("Arms with a single run: nothing is known about the spread over seeds. Add runs.")
    if student_alone(found.students) is None:
        warnings.append("No student alone (nnUNetTrainerStudent) among the folders: what distillation adds is unknown.")
    return warnings


def _may_have_seen(model: Model) -> bool:
    networks = [network for record in model.records.values() for network in source_networks(record)]
    return any(network.get("may_have_seen_validation_cases") for network in networks)


def _num_cases(found: Findings) -> int:
    return int(found.summary.cases["case"].nunique())


def _conditions(found: Findings) -> Section:
    rows = []
    for arm in found.arms:
        versions = {
            record["versions"].get("nnunetv2_hlfd", "-")
            for model in arm.models
            for record in model.records.values()
            if "versions" in record
        }
        seeds = ", ".join(str(model.seed) for model in arm.models if model.seed is not None) or "not recorded"
        checkpoints = dict.fromkeys(name for model in arm.models for name in model.checkpoint_names(found.folds))
        rows.append(
            [
                arm.name,
                str(len(arm.models)),
                seeds,
                arm.models[0].folder.trainer,
                ", ".join(sorted(versions)) or "-",
                ", ".join(checkpoints),
            ]
        )
    folds = ", ".join(map(str, found.folds))
    left_out = sorted({fold for arm in found.arms for model in arm.models for fold in model.folds} - set(found.folds))
    text = f"nnU-Net's own validation of fold {folds}, {_num_cases(found)} cases, each predicted once a run."
    if left_out:
        text += f" Left out: fold {', '.join(map(str, left_out))}, which not every model has."
    return Section(
        title="Conditions",
        content=[text, Table(head=["", "Runs", "Seeds", "Trainer", "nnunetv2_hlfd", "Checkpoint"], rows=rows)],
        note="A run is one model folder with one seed. Checkpoint: what sizes, curves and pictures are made from, the "
        "one of the end of the training, else the best one; results are those that nnU-Net has written.",
    )


def _results(found: Findings) -> list[Section]:
    table = found.summary.arms
    recall = found.recall.merge(found.summary.runs[["run", "arm"]].drop_duplicates(), on="run", how="left")
    return [
        Section(
            title=f"Results: {label}",
            content=[_result_table(table[table["label"] == label].set_index("arm"), recall[recall["label"] == label])],
            note=_result_note(found, label),
        )
        for label in dict.fromkeys(table["label"])
    ]


def _result_table(table: pd.DataFrame, recall: pd.DataFrame) -> Table:
    lesions = recall.groupby("arm")[["recall", "small_recall", "false_positives"]].mean()
    head = ["", "Runs", "Dice", "RVD", "Absolute RVD", "Lesion recall", "Smaller half", "False positives per case"]
    rows = []
    for arm, row in table.iterrows():
        found = lesions.loc[arm] if arm in lesions.index else {}
        rows.append(
            [
                str(arm),
                str(row["runs"]),
                *(
                    format_spread(row[f"{metric}_mean"], row[f"{metric}_std"])
                    for metric in ("dice", "rvd", "absolute_rvd")
                ),
                *(format_number(found.get(key, math.nan), 2) for key in ("recall", "small_recall", "false_positives")),
            ]
        )
    return Table(head=head, rows=rows)


def _result_note(found: Findings, label: str) -> str:
    note = "Mean over the cases of a run, then mean ± standard deviation over runs, where there are several."
    if label == MEAN:
        return note + " Each case's Dice is the mean over its labels."
    excluded = int(found.summary.arms.loc[found.summary.arms["label"] == label, "without_rvd"].max())
    note += f" RVD = |P| / |G| - 1; {excluded} cases without {label} have none and are left out."
    note += " A lesion is a connected component of the truth, found if one voxel of it is predicted; smaller half: "
    note += "below the median volume; false positive: a predicted component without a true voxel."
    if found.without_lesions:
        note += f" Lesions are not available for {len(found.without_lesions)} cases ({found.without_lesions[0]})."
    return note


def _comparisons(found: Findings) -> list[Section]:
    alone = student_alone(found.students)
    sections = []
    for label in dict.fromkeys(found.summary.arms["label"]):
        rows = [comparison for comparison in found.summary.comparisons if comparison.label == label]
        gap = next((gap for gap in found.summary.gaps if gap.label == label), None)
        content: list[Table | Picture | str] = [_gap_text(gap)] if gap else []
        against_alone = [row for row in rows if alone and row.reference == alone.name]
        if against_alone:
            content.append(_comparison_table(against_alone, gap))
        between = [row for row in rows if row not in against_alone]
        if between:
            content.append(_comparison_table(between, None, f"Between the methods: {len(between)} pairs"))
        if content:
            sections.append(Section(title=f"Differences in Dice: {label}", content=content, note=_comparison_note()))
    return sections


def _gap_text(gap: Gap) -> str:
    text = f"Teacher minus student alone: {format_interval(gap.difference)}."
    if not gap.is_there:
        return text + f" Nothing to distil: the gap is below {LEAST_GAP} or its interval includes 0."
    return text


def _comparison_table(rows: Sequence[Comparison], gap: Gap | None, summary: str = "") -> Table:
    shares = gap.recovered if gap else {}
    head = ["", "Compared with", "Difference", "Lose > 0.05", "Wilcoxon p", "Holm p", "Cases"]
    return Table(
        summary=summary,
        head=[*head, "Share of the gap"] if shares else head,
        rows=[
            [
                row.arm,
                row.reference,
                format_interval(row.difference),
                f"{100 * row.losing:.0f} %",
                format_p(row.wilcoxon),
                format_p(row.holm),
                str(row.num_cases),
                *([format_interval(shares[row.arm], 2)] if shares else []),
            ]
            for row in rows
        ],
    )


def _comparison_note() -> str:
    return (
        f"Paired over the cases, each averaged over its runs first. Brackets: 95 % percentile bootstrap over patients, "
        f"{RESAMPLES} resamples. Wilcoxon signed-rank test, two-sided; Holm's adjustment over all comparisons of this "
        f"label. Share of the gap: (arm - student alone) / (teacher - student alone), only where the gap is at least "
        f"{LEAST_GAP} and its interval excludes 0."
    )


def _networks(found: Findings) -> Section:
    rows, missing = [], []
    for name, cost in found.costs.items():
        parameters = cost.size.parameters if cost.size else None
        rows.append(
            [
                name,
                cost.checkpoint or "-",
                f"{parameters / 1e6:.3g} M" if parameters else "-",
                f"{cost.size.macs / 1e9:.3g}" if cost.size else "-",
                f"{parameters * _BYTES_PER_PARAMETER / 1e6:.1f} MB" if parameters else "-",
                f"{cost.checkpoint_bytes / 1e6:.1f} MB" if cost.checkpoint_bytes else "-",
                f"{1e3 * cost.latency:.1f} ms" if cost.latency else "-",
            ]
        )
        if cost.missing:
            missing.append(f"{name}: {cost.missing}")
    note = f"GMAC and latency of one patch, batch 1, median of 7 forward passes on this machine: {machine()}. The "
    note += "checkpoint also holds the optimizer's state; nnUNetv2_hlfd export leaves it out."
    if missing:
        note += f" Not available: {'; '.join(missing)}"
    head = ["", "Measured", "Parameters", "GMAC", "Weights, fp32", "Checkpoint", "Latency"]
    return Section(title="Networks", content=[Table(head=head, rows=rows)], note=note)


def _pictures(found: Findings) -> list[Section]:
    label, alone = found.main_label, student_alone(found.students)
    sections = []
    if any(cost.size for cost in found.costs.values()):
        picture = Picture(
            figure=draw_size(found.summary, label, found.costs),
            name="dice_size.png",
            text=f"Dice ({label}) of every arm over its number of parameters",
        )
        sections.append(Section(title="Dice and size", content=[picture]))
    others = [arm.name for arm in found.students if arm is not alone]
    if alone and others:
        picture = Picture(
            figure=draw_cases(found.summary, label, alone.name, others),
            name="cases.png",
            text=f"Dice ({label}) of every case: each arm over the student alone",
        )
        note = "Above the line: better than the student alone. Named: the three cases that lose most, if over 0.05."
        sections.append(Section(title="Every case", content=[picture], note=note))
    if found.curves:
        picture = Picture(
            figure=draw_curves(found.curves), name="curves.png", text="Pseudo Dice and validation loss of every epoch"
        )
        note = "Mean over runs and folds. A student alone that still rises at the end was not trained long enough."
        sections.append(Section(title="Training curves", content=[picture], note=note))
    return sections
