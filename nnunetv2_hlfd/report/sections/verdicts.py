"""Did it help? One sentence for each student."""

from nnunetv2_hlfd.report.arms import Arm
from nnunetv2_hlfd.report.findings import Findings
from nnunetv2_hlfd.report.formatting import format_interval
from nnunetv2_hlfd.report.page import Section
from nnunetv2_hlfd.report.provenance import unequal_training
from nnunetv2_hlfd.report.summary import Comparison
from nnunetv2_hlfd.report.verdict import RULES, decide


def verdicts(found: Findings) -> list[Section]:
    """A sentence for each student: against its student alone, and against the teacher."""
    note = (
        f"The first of these rules that holds decides: {'; '.join(RULES)}. In parentheses are the differences in Dice "
        f"({found.main_label}), paired over {found.num_cases} cases, with 95 % intervals. The margin is "
        f"{found.margin:g} Dice (--margin) and has to be chosen before the results are seen. With the number of cases "
        "that would be needed, the interval would reach no further than the margin to each side, if the spread stays "
        "as it is."
    )
    return [Section(title="Did it help?", content=[_sentence(found, arm) for arm in found.students], note=note)]


def _sentence(found: Findings, arm: Arm) -> str:
    rows = [row for row in found.summary.comparisons if row.label == found.main_label and row.arm == arm.name]
    asked = next((row for row in rows if row.is_question), None)
    compared = [row for row in (asked, _to_teacher(found, arm)) if row]
    parts = [_judge(found, row) for row in compared]
    if asked is None and not arm.is_student_alone:
        parts.append("there is no student alone of its architecture to compare it with")
    return f"{arm.name}: {'; '.join(parts)}.{''.join(_needed(found, row) for row in compared)}{_runs(arm)}"


def _to_teacher(found: Findings, arm: Arm) -> Comparison | None:
    rows = found.summary.to_teacher
    return next((row for row in rows if row.label == found.main_label and row.arm == arm.name), None)


def _judge(found: Findings, row: Comparison) -> str:
    verdict = decide(row.difference, found.margin, row.num_cases)
    words = {
        "helped": "helped compared with" if row.is_question else "better than",
        "not known": "not known whether better or worse than",
    }
    text = f"{words.get(verdict.word, f'{verdict.word} than')} {row.reference} ({format_interval(row.difference)}"
    arms = {arm.name: arm for arm in found.arms}
    if row.is_question and (unequal := unequal_training(arms[row.arm], arms[row.reference], found.curves)):
        text += f"; not trained alike: {', '.join(unequal)}"
    return text + ")"


def _needed(found: Findings, row: Comparison) -> str:
    needed = decide(row.difference, found.margin, row.num_cases).num_cases
    if not needed:
        return ""
    return (
        f" About {needed} cases would be needed to know whether it is better or worse than {row.reference}; this "
        f"report has {row.num_cases}."
    )


def _runs(arm: Arm) -> str:
    return (
        " There is only one run, so the intervals do not include the spread over seeds." if len(arm.models) == 1 else ""
    )
