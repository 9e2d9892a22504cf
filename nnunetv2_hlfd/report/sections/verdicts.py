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
        f"Rules, the first that holds: {'; '.join(RULES)}. Differences in Dice ({found.main_label}), paired over "
        f"{found.num_cases} cases, 95 % intervals. Margin: {found.margin:g} Dice (--margin), which has to be chosen "
        "before the results are seen. The number of cases that a verdict would take is that at which the interval "
        "reaches no further than the margin to each side, if the spread stays as it is."
    )
    return [Section(title="Did it help?", content=[_sentence(found, arm) for arm in found.students], note=note)]


def _sentence(found: Findings, arm: Arm) -> str:
    rows = [row for row in found.summary.comparisons if row.label == found.main_label and row.arm == arm.name]
    asked = next((row for row in rows if row.is_question), None)
    parts = [_judge(found, row) for row in (asked, _to_teacher(found, arm)) if row]
    if asked is None and not arm.is_student_alone:
        parts.append("no student alone of its architecture to compare with")
    return f"{arm.name}: {'; '.join(parts)}.{_runs(arm)}"


def _to_teacher(found: Findings, arm: Arm) -> Comparison | None:
    rows = found.summary.to_teacher
    return next((row for row in rows if row.label == found.main_label and row.arm == arm.name), None)


def _judge(found: Findings, row: Comparison) -> str:
    verdict = decide(row.difference, found.margin, row.num_cases)
    words = {"helped": "helped against" if row.is_question else "better than", "not known": "not known against"}
    text = f"{words.get(verdict.word, f'{verdict.word} than')} {row.reference} ({format_interval(row.difference)}"
    if verdict.num_cases:
        text += f"; about {verdict.num_cases} cases would tell"
    arms = {arm.name: arm for arm in found.arms}
    if row.is_question and (unequal := unequal_training(arms[row.arm], arms[row.reference], found.curves)):
        text += f"; not trained alike: {', '.join(unequal)}"
    return text + ")"


def _runs(arm: Arm) -> str:
    return " One run: the spread over seeds is not in the interval." if len(arm.models) == 1 else ""
