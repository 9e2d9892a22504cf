"""Paired differences in Dice."""

from collections.abc import Mapping, Sequence

from nnunetv2_hlfd.report.bootstrap import RESAMPLES, Interval
from nnunetv2_hlfd.report.findings import Findings
from nnunetv2_hlfd.report.formatting import format_interval, format_p
from nnunetv2_hlfd.report.page import Picture, Section, Table
from nnunetv2_hlfd.report.provenance import unequal_training
from nnunetv2_hlfd.report.statistics import LEAST_GAP
from nnunetv2_hlfd.report.summary import Comparison, Gap

_NOTE = (
    "Each arm against the student alone of its own architecture. Paired over the cases, and over the seeds where both "
    f"arms have the same ones. Brackets: 95 % studentized bootstrap over patients and runs, {RESAMPLES} resamples; "
    "with a single run, over patients alone. Wilcoxon signed-rank test over the cases, each averaged over its runs; "
    "two-sided, cases without a difference left out. Holm's adjustment over the arms that are compared with a student "
    "alone; the other pairs are exploratory and adjusted among themselves. Share of the gap: (arm - student alone) / "
    f"(teacher - student alone), BCa bootstrap over patients, only where the gap is at least {LEAST_GAP} and its "
    "interval excludes 0."
)


def comparisons(found: Findings) -> list[Section]:
    """Differences for each label: the question first, exploratory pairs folded away."""
    sections = []
    for label in found.labels:
        rows = [comparison for comparison in found.summary.comparisons if comparison.label == label]
        gaps = [gap for gap in found.summary.gaps if gap.label == label]
        content: list[Table | Picture | str] = [_gap_text(gap, named=len(gaps) > 1) for gap in gaps]
        asked = [row for row in rows if row.is_question]
        if asked:
            content.append(_table(found, asked, {arm: share for gap in gaps for arm, share in gap.recovered.items()}))
        others = [row for row in rows if not row.is_question]
        if others:
            content.append(_table(found, others, {}, f"Exploratory: {len(others)} other pairs"))
        if content:
            sections.append(Section(title=f"Differences in Dice: {label}", content=content, note=_NOTE))
    return sections


def _gap_text(gap: Gap, named: bool) -> str:
    text = f"Teacher minus {gap.alone if named else 'student alone'}: {format_interval(gap.difference)}."
    if not gap.is_there:
        return text + f" Nothing to distil: the gap is below {LEAST_GAP} or its interval includes 0."
    return text


def _table(found: Findings, rows: Sequence[Comparison], shares: Mapping[str, Interval], summary: str = "") -> Table:
    head = ["", "Compared with", "Difference", "Lose > 0.05", "Wilcoxon p", "Holm p", "Cases"]
    arms = {arm.name: arm for arm in found.arms}
    return Table(
        summary=summary,
        head=[*head, "Share of the gap", "Not equal"] if shares else [*head, "Not equal"],
        rows=[
            [
                row.arm,
                row.reference,
                format_interval(row.difference),
                f"{100 * row.losing:.0f} %",
                format_p(row.wilcoxon),
                format_p(row.holm),
                str(row.num_cases),
                *([format_interval(shares[row.arm], 2) if row.arm in shares else "-"] if shares else []),
                ", ".join(unequal_training(arms[row.arm], arms[row.reference])) or "-",
            ]
            for row in rows
        ],
    )
