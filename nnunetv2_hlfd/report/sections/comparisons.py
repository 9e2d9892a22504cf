"""Paired differences in Dice."""

from collections.abc import Sequence

from nnunetv2_hlfd.report.bootstrap import RESAMPLES
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


_CHANCE = (
    " Adjusted within each label: of many labels, some differ by chance alone. Gap: teacher minus student alone; "
    f"there is nothing to distill where it is below {LEAST_GAP} or its interval includes 0."
)


def comparisons(found: Findings) -> list[Section]:
    """Of the only label; or of the mean over labels, and of all labels. Exploratory pairs are folded away."""
    main, *labels = found.labels
    gaps = [gap for gap in found.summary.gaps if gap.label == main]
    content: list[Table | Picture | str] = [_gap_text(gap, named=len(gaps) > 1) for gap in gaps]
    content += _tables(found, [main])
    sections = [Section(title=f"Differences in Dice: {main}", content=content, note=_NOTE)] if content else []
    if labels and (tables := _tables(found, labels)):
        sections.append(Section(title="Differences in Dice: each label", content=tables, note=_NOTE + _CHANCE))
    return sections


def _gap_text(gap: Gap, named: bool) -> str:
    text = f"Teacher minus {gap.alone if named else 'student alone'}: {format_interval(gap.difference)}."
    if not gap.is_there:
        return text + f" Nothing to distill: the gap is below {LEAST_GAP} or its interval includes 0."
    return text


def _tables(found: Findings, labels: Sequence[str]) -> list[Table]:
    """The question, then exploratory pairs."""
    order = {label: place for place, label in enumerate(labels)}
    rows = sorted((row for row in found.summary.comparisons if row.label in order), key=lambda row: order[row.label])
    asked, others = ([row for row in rows if row.is_question is is_question] for is_question in (True, False))
    tables = [_table(found, asked, is_question=True)] if asked else []
    if others:
        number = len(others) // len(labels)
        tables.append(
            _table(found, others, is_question=False, summary=f"Exploratory: {number} other pair{'s' * (number > 1)}")
        )
    return tables


def _table(found: Findings, rows: Sequence[Comparison], is_question: bool, summary: str = "") -> Table:
    named = len({row.label for row in rows}) > 1
    gaps = {(gap.label, gap.alone): gap for gap in found.summary.gaps}
    some_shares = is_question and any(gaps[row.label, row.reference].recovered for row in rows)
    arms = {arm.name: arm for arm in found.arms}
    unequal = {
        (first, second): ", ".join(unequal_training(arms[first], arms[second], found.curves)) or "-"
        for first, second in {(row.arm, row.reference) for row in rows}
    }
    head = ["Arm", "Compared with", "Difference", "Lose > 0.05", "Wilcoxon p", "Holm p", "Cases"]
    head += [*(["Gap"] if is_question and named else []), *(["Share of the gap"] if some_shares else []), "Not equal"]
    cells = []
    for row in rows:
        gap = gaps.get((row.label, row.reference))
        share = gap and gap.recovered.get(row.arm)
        cells.append(
            [
                *([row.label] if named else []),
                row.arm,
                row.reference,
                format_interval(row.difference),
                f"{100 * row.losing:.0f} %",
                format_p(row.wilcoxon),
                format_p(row.holm),
                str(row.num_cases),
                *([format_interval(gap.difference)] if gap and is_question and named else []),
                *([format_interval(share, 2) if share else "-"] if some_shares else []),
                unequal[row.arm, row.reference],
            ]
        )
    return Table(head=["Label", *head] if named else head, rows=cells, num_names=3 if named else 2, summary=summary)
