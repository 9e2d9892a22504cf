"""The sections of the report."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from nnunetv2_hlfd.compress.picture import draw_agreement
from nnunetv2_hlfd.compress.scores import TEACHER, TRUTH, behind_teacher, mean_of, of_cases
from nnunetv2_hlfd.compress.speed import Speed
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.report.bootstrap import Interval
from nnunetv2_hlfd.report.formatting import format_interval, format_number
from nnunetv2_hlfd.report.page import Picture, Section, Table
from nnunetv2_hlfd.report.verdict import RULES, decide

STUDENT, SMALL, CONTROL = "student", "student_small", "control"
_TITLES = {
    TEACHER: "teacher",
    STUDENT: "student",
    SMALL: "student, predict.pyz",
    CONTROL: "student on the label maps alone",
}
_GOOD = 0.9
_EMPTY = (
    "Dice is 1 where a label is in neither of two maps and 0 where it is in one of them alone; nnU-Net's own Dice "
    "leaves out the former."
)


def agreement(scores: pd.DataFrame, students: Sequence[str], num_training: int) -> Section:
    """Each student beside the teacher, and a picture of the student's images."""
    rows = []
    for name in students:
        values = of_cases(scores, name, TEACHER)
        worst = f"{values.min():.3f} ({values.idxmin()})"
        rows.append([_TITLES[name], *_means(scores, name, TEACHER), worst, f"{(values < _GOOD).mean():.0%}"])
    head = ["", "Dice [95 %]", "nnU-Net's Dice", "worst image", f"images below {_GOOD}"]
    picture = Picture(
        figure=draw_agreement(scores[(scores["model"] == STUDENT) & (scores["against"] == TEACHER)]),
        name="agreement.png",
        text="Dice of student and teacher: on each held-out image, and over the size of the label",
    )
    return Section(
        title="Agreement with the teacher",
        content=[Table(head=head, rows=rows), picture],
        note=f"Mean over the labels of an image, then over {scores['case'].nunique()} held-out images; the student "
        f"learned from {num_training} others. {_EMPTY} Intervals: studentized bootstrap over images. Images of one "
        f"patient are not known to be such.",
    )


def truth(scores: pd.DataFrame, students: Sequence[str], labels: Sequence[str], margin: float) -> list[Section]:
    """Teacher and students against the true labels, where there are any."""
    known = scores[scores["against"] == TRUTH]["case"].nunique()
    if not known:
        return []
    rows = []
    for name in (TEACHER, *students):
        difference = behind_teacher(scores, name) if name != TEACHER else None
        judged = ["", ""] if difference is None else [format_interval(difference), judge(difference, margin, known)]
        rows.append([_TITLES[name], *_means(scores, name, TRUTH), *judged])
    content = [Table(head=["", "Dice [95 %]", "nnU-Net's Dice", "minus the teacher's", "verdict"], rows=rows)]
    if len(labels) > 1:
        content.append(Table(head=["", "teacher", "student", "difference"], rows=_true_labels(scores, labels)))
    return [
        Section(
            title="Against the truth",
            content=content,
            note=f"On the {known} held-out images with labels. Differences are paired over these images. Verdicts, the "
            f"first that holds: {'; '.join(RULES)}; here, better takes the place of helped. Margin: {margin:g} Dice "
            f"(--margin), which has to be chosen before the results are seen.",
        )
    ]


def judge(difference: Interval, margin: float, num_cases: int) -> str:
    """What a difference to the teacher in Dice says, by the rules of every report."""
    verdict = decide(difference, margin, num_cases)
    words = {"helped": "better than its teacher", "not known": "not known whether it is as good as its teacher"}
    text = f"{words.get(verdict.word, f'{verdict.word} than its teacher')} ({format_interval(difference)}"
    if verdict.num_cases:
        text += f"; to know it, about {verdict.num_cases} held-out images with labels would be needed"
    return f"{text})"


def labels(scores: pd.DataFrame, names: Sequence[str]) -> Section:
    """The student beside the teacher, label by label."""
    rows = []
    for label in names:
        chosen = scores[(scores["model"] == STUDENT) & (scores["against"] == TEACHER) & (scores["label"] == label)]
        voxels, teachers = chosen["voxels"].sum(), chosen["reference_voxels"].sum()
        rows.append(
            [
                label,
                *_means(scores, STUDENT, TEACHER, label),
                f"{chosen['nnunet_dice'].notna().sum()}",
                f"{chosen['dice'].min():.3f}",
                f"{voxels / teachers - 1:+.1%}" if teachers else "-",
            ]
        )
    head = ["", "Dice [95 %]", "nnU-Net's Dice", "images", "worst", "volume"]
    return Section(
        title="Labels",
        content=[Table(head=head, rows=rows)],
        note="Student against teacher. Images: those in which at least one of them finds the label. Volume: of all "
        "images together, minus the teacher's.",
    )


def costs(speed: Speed, outcome: Mapping[str, Any], models: Mapping[str, ModelFolder]) -> Section:
    """Size and seconds of teacher, student and the export without torch.

    Args:
        speed: What was measured.
        outcome: Of the export without torch.
        models: Whose spacing and patch are told.
    """
    teacher = [
        f"{speed.networks} x {speed.teacher_parameters / 1e6:.3g} M",
        f"{speed.networks} x {speed.teacher_macs / 1e9:.3g}",
        f"{speed.teacher:.3g}",
        "",
    ]
    student = [
        f"{speed.student_parameters / 1e6:.3g} M",
        f"{speed.student_macs / 1e9:.3g}",
        f"{speed.student:.3g}",
        f"{speed.archive_bytes / 1e6:.2f} MB",
    ]
    rows = [["teacher", *teacher], ["student", *student]]
    if speed.small is not None and speed.small_bytes is not None:
        small = ["", "", f"{speed.small:.3g}", f"{speed.small_bytes / 1e6:.2f} MB"]
        rows.append([f"student, predict.pyz, {outcome['precision']}", *small])
    content: list[Table | str] = [Table(head=["", "Parameters", "GMAC per patch", "s per image", "zip"], rows=rows)]
    content.append(f"Grid: {'; '.join(_grid(name, model) for name, model in models.items())}.")
    if outcome["reason"]:
        content.append(f"Not in 8 bits: {outcome['reason']}")
    return Section(
        title="Cost",
        content=content,
        note=f"Seconds from image file to segmentation file, mean of {speed.cases} held-out images, program start left "
        f"out; teacher and student by the same code on the same device ({speed.machine}), predict.pyz on the "
        f"processor.",
    )


def _grid(name: str, model: ModelFolder) -> str:
    configuration = model.configuration_manager
    spacing = " x ".join(f"{extent:.3g}" for extent in configuration.spacing)
    return f"the {name} works at {spacing} mm, in patches of {' x '.join(map(str, configuration.patch_size))}"


def format_mean(interval: Interval | None) -> str:
    """A mean with its 95 % interval."""
    return "-" if interval is None else f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _means(scores: pd.DataFrame, model: str, against: str, label: str | None = None) -> list[str]:
    """Dice with its interval, and nnU-Net's."""
    nnunet = of_cases(scores, model, against, label, "nnunet_dice").mean()
    return [format_mean(mean_of(of_cases(scores, model, against, label))), format_number(nnunet, 3)]


def _true_labels(scores: pd.DataFrame, labels: Sequence[str]) -> list[list[str]]:
    rows = []
    for label in labels:
        difference = behind_teacher(scores, STUDENT, label)
        means = [format_mean(mean_of(of_cases(scores, name, TRUTH, label))) for name in (TEACHER, STUDENT)]
        rows.append([label, *means, "-" if difference is None else format_interval(difference)])
    return rows
