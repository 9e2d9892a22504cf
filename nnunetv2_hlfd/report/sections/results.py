"""Means over cases and runs."""

import math
from collections.abc import Sequence

import pandas as pd

from nnunetv2_hlfd.report.findings import Findings
from nnunetv2_hlfd.report.formatting import format_number, format_spread
from nnunetv2_hlfd.report.lesions import LEAST_IOU
from nnunetv2_hlfd.report.page import Section, Table
from nnunetv2_hlfd.report.summary import MEAN

_LESIONS = {
    "recall": "Lesion recall",
    "small_recall": "Smaller half",
    "f1": "Lesion F1",
    "false_positives": "False positives per case",
}


def results(found: Findings) -> list[Section]:
    """A table of the only label; or one of the mean over labels, and one of all labels.

    Columns without any value are left out.
    """
    main, *labels = found.labels
    sections = [
        Section(title=f"Results: {main}", content=[_table(found, [main], named=False)], note=_note(found, [main]))
    ]
    if labels:
        sections.append(
            Section(title="Results: each label", content=[_table(found, labels, named=True)], note=_note(found, labels))
        )
    return sections


def _table(found: Findings, labels: Sequence[str], named: bool) -> Table:
    table = found.summary.arms[found.summary.arms["label"].isin(labels)]
    some_absent = bool(table["absent"].max())
    head = ["Label", "Arm"] if named else ["Arm"]
    head += ["Runs", "Dice", "RVD", "Absolute RVD", *_LESIONS.values()]
    if some_absent:
        head += ["Cases without", "Absence found", "Dice, nnU-Net"]
    lesions = _lesions(found)
    rows = [
        [
            *([row["label"]] if named else []),
            row["arm"],
            str(row["runs"]),
            *(_spread(row, metric) for metric in ("dice", "rvd", "absolute_rvd")),
            *(format_number(lesions.get((row["arm"], row["label"]), {}).get(key, math.nan), 2) for key in _LESIONS),
            *([str(row["absent"]), _spread(row, "specificity"), _spread(row, "nnunet_dice")] if some_absent else []),
        ]
        for label in labels
        for row in table[table["label"] == label].to_dict("records")
    ]
    kept = [place for place in range(len(head)) if any(row[place] != "-" for row in rows)]
    return Table(
        head=[head[place] for place in kept],
        rows=[[row[place] for place in kept] for row in rows],
        num_names=2 if named else 1,
    )


def _spread(row: "dict[str, float]", metric: str) -> str:
    return format_spread(row[f"{metric}_mean"], row[f"{metric}_std"])


def _lesions(found: Findings) -> dict[tuple[str, str], dict[str, float]]:
    """(arm, label) -> means over the runs."""
    recall = found.recall.merge(found.summary.runs[["run", "arm"]].drop_duplicates(), on="run", how="left")
    means: pd.DataFrame = recall.groupby(["arm", "label"])[list(_LESIONS)].mean()
    return means.to_dict("index")


def _note(found: Findings, labels: Sequence[str]) -> str:
    note = "Mean over the cases of a run, then mean ± standard deviation over runs, where there are several."
    if labels == [MEAN]:
        return note + " Each case's Dice is the mean over its labels; 1 for a label that is absent and not predicted."
    note += " RVD = |P| / |G| - 1; cases without the label have none and are left out."
    if found.summary.arms["absent"].max():
        note += " In cases without the label, Dice is 1 where nothing is predicted and 0 where something is. Absence "
        note += "found: the share of these cases in which nothing is predicted. nnU-Net's own Dice leaves out the "
        note += "former, so that each arm's mean is over other cases."
    note += " A lesion is a connected component of the truth, found if one voxel of it is predicted; smaller half: "
    note += "below the median volume; false positive: a predicted component without a true voxel."
    note += (
        " F1: lesions and predicted components are matched one to one, for the largest sum of IoU over pairs with an "
    )
    note += f"IoU of at least {LEAST_IOU}; 2 x matches / (lesions + predicted components) over all cases of a run."
    if found.without_lesions:
        note += f" Lesions are not available for {len(found.without_lesions)} cases ({found.without_lesions[0]})."
    return note
