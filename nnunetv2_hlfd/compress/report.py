"""The proof: what the student is worth beside its teacher, on images that it has not learned from."""

from collections.abc import Sequence

import pandas as pd

from nnunetv2_hlfd.compress.data import division
from nnunetv2_hlfd.compress.exports import find_program, read_outcome
from nnunetv2_hlfd.compress.inventory import Inventory, warnings
from nnunetv2_hlfd.compress.options import Options
from nnunetv2_hlfd.compress.places import Places
from nnunetv2_hlfd.compress.scores import TEACHER, TRUTH, mean_of, of_cases, score
from nnunetv2_hlfd.compress.speed import Speed
from nnunetv2_hlfd.compress.teacher import Taught, foreground
from nnunetv2_hlfd.report.bootstrap import Interval
from nnunetv2_hlfd.report.page import Page, Section, Table, to_html, to_markdown
from nnunetv2_hlfd.utilities.atomic import write_text
from nnunetv2_hlfd.utilities.json_file import read_record
from nnunetv2_hlfd.utilities.text import some_names

STUDENT, SMALL, CONTROL = "student", "student_small", "control"
_TITLES = {
    TEACHER: "teacher",
    STUDENT: "student",
    SMALL: "student, predict.pyz",
    CONTROL: "student on the label maps alone",
}
_GOOD = 0.9
_RARE = 3


def write_report(places: Places, options: Options) -> None:
    """Compare, and write report.md, report.html and cases.csv."""
    inventory, divided = read_record(Inventory, places.inventory), division(places, options)
    names = [STUDENT, *([SMALL] if find_program(places) else []), *([CONTROL] if options.control else [])]
    truth = {case: places.raw / "labelsTr" / f"{case}{places.model.file_ending}" for case in inventory.labels}
    scores = score(
        places.model,
        divided.held_out,
        {TEACHER: places.teacher, **{name: places.predictions(name) for name in names}},
        {case: file for case, file in truth.items() if case in divided.held_out},
    )
    speed = read_record(Speed, places.speed)
    page = Page(
        title=verdict(scores, speed),
        warnings=_warnings(places, inventory, divided.training, divided.held_out),
        sections=[
            _summary(scores, names, len(divided.held_out), len(divided.training)),
            *_truth(scores, names),
            _labels(scores, places),
            _costs(speed, places),
        ],
    )
    write_text(places.folder / "cases.csv", scores.to_csv(index=False))
    write_text(places.folder / "report.html", to_html(page))
    write_text(places.report, to_markdown(page))


def verdict(scores: pd.DataFrame, speed: Speed) -> str:
    """The result in one line."""
    agreement, number = mean_of(of_cases(scores, STUDENT, TEACHER)), scores["case"].nunique()
    if agreement is None:
        words = f"On {number} held-out images neither the student nor its teacher finds a label"
    else:
        words = f"The student agrees with its teacher at Dice {_in_words(agreement)} on {number} held-out images"
    small = f", {speed.teacher / speed.small:.3g} x with predict.pyz" if speed.small else ""
    words = f"{words}; it is {speed.times_smaller:.3g} x smaller and {speed.times_faster:.3g} x faster{small}"
    if difference := _behind(scores, STUDENT):
        words += f"; against the truth it is {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
    return words


def _behind(scores: pd.DataFrame, name: str) -> Interval | None:
    """The student's Dice against the truth less the teacher's."""
    own, teachers = of_cases(scores, name, TRUTH), of_cases(scores, TEACHER, TRUTH)
    return mean_of(own - teachers) if len(own) else None


def _in_words(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _warnings(places: Places, inventory: Inventory, training: Sequence[str], held_out: Sequence[str]) -> list[str]:
    taught = read_record(Taught, places.taught)
    found = warnings(inventory)
    if known := set(held_out) & set(inventory.own):
        found.append(
            f"{len(known)} of the held-out images are the teacher's own training cases: agreement on them is too good."
        )
    if taught.failed:
        found.append(f"The teacher failed on {len(taught.failed)} images (failed.csv): {some_names(taught.failed)}.")
    count = Taught(failed={}, found={case: taught.found[case] for case in training}).count()
    if rare := [f"{label} ({count[label]})" for label in foreground(places.model) if count[label] < _RARE]:
        found.append(f"The teacher finds these labels in fewer than {_RARE} training images: {', '.join(rare)}.")
    return found


def _summary(scores: pd.DataFrame, names: Sequence[str], held_out: int, training: int) -> Section:
    rows = []
    for name in names:
        values = of_cases(scores, name, TEACHER)
        worst = "-" if values.isna().all() else f"{values.min():.3f} ({values.idxmin()})"
        rows.append([_TITLES[name], _in_words(mean_of(values)), worst, f"{(values < _GOOD).mean():.0%}"])
    return Section(
        title="Agreement with the teacher",
        content=[Table(head=["", "Dice [95 %]", "worst image", f"images below {_GOOD}"], rows=rows)],
        note=f"Mean over the labels of an image, then over {held_out} held-out images; the student learned from "
        f"{training} others. Intervals: bootstrap over images. Images of one patient are not known to be such. An "
        f"image in which neither finds a label has no Dice.",
    )


def _truth(scores: pd.DataFrame, names: Sequence[str]) -> list[Section]:
    known = scores[scores["against"] == TRUTH]["case"].nunique()
    if not known:
        return []
    rows = []
    for name in (TEACHER, *names):
        difference = None if name == TEACHER else _behind(scores, name)
        signed = f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]" if difference else ""
        rows.append([_TITLES[name], _in_words(mean_of(of_cases(scores, name, TRUTH))), signed])
    table = Table(head=["", "Dice [95 %]", "less the teacher's"], rows=rows)
    return [Section(title="Against the truth", content=[table], note=f"On the {known} held-out images with labels.")]


def _labels(scores: pd.DataFrame, places: Places) -> Section:
    rows = []
    for label in foreground(places.model):
        values = of_cases(scores, STUDENT, TEACHER, label)
        chosen = scores[(scores["model"] == STUDENT) & (scores["against"] == TEACHER) & (scores["label"] == label)]
        volume = (
            chosen["voxels"].sum() / chosen["reference_voxels"].sum() - 1 if chosen["reference_voxels"].sum() else None
        )
        rows.append(
            [
                label,
                _in_words(mean_of(values)),
                f"{values.notna().sum()}",
                "-" if values.isna().all() else f"{values.min():.3f}",
                "-" if volume is None else f"{volume:+.1%}",
            ]
        )
    return Section(
        title="Labels",
        content=[Table(head=["", "Dice [95 %]", "images", "worst", "volume"], rows=rows)],
        note="Student against teacher. Images: those in which at least one of them finds the label. Volume: of all "
        "images together, less the teacher's.",
    )


def _costs(speed: Speed, places: Places) -> Section:
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
    outcome = read_outcome(places)
    if speed.small is not None and speed.small_bytes is not None:
        rows.append(
            [
                f"student, predict.pyz, {outcome['precision']}",
                "",
                "",
                f"{speed.small:.3g}",
                f"{speed.small_bytes / 1e6:.2f} MB",
            ]
        )
    content: list[Table | str] = [Table(head=["", "Parameters", "GMAC per patch", "s per image", "zip"], rows=rows)]
    if outcome["reason"]:
        content.append(f"Not in 8 bits: {outcome['reason']}")
    return Section(
        title="Cost",
        content=content,
        note=f"Seconds from image file to segmentation file, mean of {speed.cases} held-out images, program start left "
        f"out; teacher and student by the same code on the same device ({speed.machine}), predict.pyz on the "
        f"processor.",
    )
