"""The proof: what the student is worth beside its teacher, on images that it has not learned from."""

from collections.abc import Sequence

import pandas as pd
from matplotlib import style

from nnunetv2_hlfd.compress.data import division
from nnunetv2_hlfd.compress.exports import find_program, read_outcome
from nnunetv2_hlfd.compress.inventory import Inventory, warnings
from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.compress.places import Places
from nnunetv2_hlfd.compress.scores import TEACHER, TRUTH, behind_teacher, mean_of, of_cases, score
from nnunetv2_hlfd.compress.sections import (
    CONTROL,
    SMALL,
    STUDENT,
    agreement,
    costs,
    format_mean,
    judge,
    labels,
    truth,
)
from nnunetv2_hlfd.compress.speed import Speed
from nnunetv2_hlfd.compress.teacher import Taught, foreground
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.report.page import Page, to_html, to_markdown, to_png
from nnunetv2_hlfd.utilities.atomic import write_files
from nnunetv2_hlfd.utilities.json_file import read_record
from nnunetv2_hlfd.utilities.text import some_names

_RARE = 3


@style.context("default")  # nnU-Net's own plots leave their large fonts behind in the process
def write_report(places: Places, options: CompressOptions) -> None:
    """Compare, and write report.md, report.html, agreement.png and cases.csv."""
    inventory, divided = read_record(Inventory, places.inventory), division(places, options)
    students = [
        STUDENT,
        *([SMALL] if find_program(places) else []),
        *([CONTROL] if places.has_control(options) else []),
    ]
    known = [case for case in divided.held_out if case in inventory.labels]
    scores = score(
        places.model,
        divided.held_out,
        {TEACHER: places.teacher, **{name: places.predictions(name) for name in students}},
        {case: places.raw / "labelsTr" / f"{case}{places.model.file_ending}" for case in known},
    )
    speed = read_record(Speed, places.speed)
    names = list(foreground(places.model))
    page = Page(
        title=verdict(scores, speed, options.margin),
        warnings=_warnings(places, inventory, divided.training, divided.held_out),
        sections=[
            agreement(scores, students, len(divided.training)),
            *truth(scores, students, names, options.margin),
            labels(scores, names),
            costs(
                speed, read_outcome(places), {"teacher": places.model, "student": ModelFolder.open(places.student())}
            ),
        ],
    )
    files = {picture.name: to_png(picture.figure) for picture in page.pictures}
    files |= {"cases.csv": scores.to_csv(index=False).encode(), "report.html": to_html(page).encode()}
    write_files(places.folder, {**files, places.report.name: to_markdown(page).encode()})


def verdict(scores: pd.DataFrame, speed: Speed, margin: float) -> str:
    """The result in one line."""
    number = scores["case"].nunique()
    if of_cases(scores, STUDENT, TEACHER, measure="nnunet_dice").isna().all():
        words = f"On {number} held-out images neither the student nor its teacher finds a label"
    else:
        mean = format_mean(mean_of(of_cases(scores, STUDENT, TEACHER)))
        words = f"The student agrees with its teacher at Dice {mean} on {number} held-out images"
    small = f", {speed.teacher / speed.small:.3g} x with predict.pyz" if speed.small else ""
    words = f"{words}; it is {speed.times_smaller:.3g} x smaller and {speed.times_faster:.3g} x faster{small}"
    if difference := behind_teacher(scores, STUDENT):
        known = scores[scores["against"] == TRUTH]["case"].nunique()
        words += f"; against the truth it is {judge(difference, margin, known)} on {known} of them"
    return words


def _warnings(places: Places, inventory: Inventory, training: Sequence[str], held_out: Sequence[str]) -> list[str]:
    taught = read_record(Taught, places.taught)
    found = [*warnings(inventory), *places.teaching.warnings]
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
