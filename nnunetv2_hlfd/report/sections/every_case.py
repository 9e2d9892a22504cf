"""Each case's Dice beside that of the student alone."""

from nnunetv2_hlfd.report.arms import student_alone
from nnunetv2_hlfd.report.findings import Findings
from nnunetv2_hlfd.report.page import Picture, Section
from nnunetv2_hlfd.report.plots import draw_cases


def every_case(found: Findings) -> list[Section]:
    """A scatter plot for every arm."""
    label, alone = found.main_label, student_alone(found.students)
    others = [arm.name for arm in found.students if arm is not alone]
    if not alone or not others:
        return []
    picture = Picture(
        figure=draw_cases(found.summary, label, alone.name, others),
        name="cases.png",
        text=f"Dice ({label}) of every case: each arm over the student alone",
    )
    note = "Above the line: better than the student alone. Named: the three cases that lose most, if over 0.05."
    return [Section(title="Every case", content=[picture], note=note)]
