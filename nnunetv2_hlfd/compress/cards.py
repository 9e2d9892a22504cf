"""The model cards of the exports, completed by what was measured with them."""

import pandas as pd

from nnunetv2_hlfd.compress.exports import find_program
from nnunetv2_hlfd.compress.places import Places
from nnunetv2_hlfd.compress.scores import TEACHER, behind_teacher, mean_of, of_cases
from nnunetv2_hlfd.compress.sections import SMALL, STUDENT
from nnunetv2_hlfd.compress.speed import Speed
from nnunetv2_hlfd.deploy.card_facts import Measured
from nnunetv2_hlfd.deploy.package import Exported, add_measured
from nnunetv2_hlfd.report.bootstrap import Interval
from nnunetv2_hlfd.utilities.atomic import write_text
from nnunetv2_hlfd.utilities.json_file import read_record

_DICE = ("dice", "nnunet_dice")


def write_cards(places: Places) -> None:
    """Complete README.md in each export and its zip; that of the one for nnU-Net becomes the folder's own."""
    scores = pd.read_csv(
        places.folder / "cases.csv",
        dtype=dict.fromkeys(("model", "against", "case", "label"), str),
        keep_default_na=False,
        na_values={name: [""] for name in _DICE},
    )
    speed = read_record(Speed, places.speed)
    if find_program(places):
        assert speed.small is not None
        [archive] = places.export_openvino.glob("*.zip")
        exported = Exported(folder=places.small_model, archive=archive)
        add_measured(exported, _measured(scores, SMALL, speed.small, speed.small_memory, speed.processor))
    exported = Exported(folder=places.export / places.dataset / places.exported_name, archive=places.archive)
    card = add_measured(exported, _measured(scores, STUDENT, speed.student, speed.student_memory, speed.machine))
    write_text(places.card, card)


def _measured(scores: pd.DataFrame, name: str, seconds: float, memory: int | None, machine: str) -> Measured:
    return Measured(
        agreement=_numbers(mean_of(of_cases(scores, name, TEACHER))),
        images=scores["case"].nunique(),
        truth=_numbers(behind_teacher(scores, name)),
        seconds=seconds,
        memory=memory,
        machine=machine,
    )


def _numbers(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.value, interval.low, interval.high]
