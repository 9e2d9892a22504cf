"""Means over cases and runs."""

import math

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
    """A table for each label."""
    table = found.summary.arms
    recall = found.recall.merge(found.summary.runs[["run", "arm"]].drop_duplicates(), on="run", how="left")
    return [
        Section(
            title=f"Results: {label}",
            content=[_result_table(table[table["label"] == label].set_index("arm"), recall[recall["label"] == label])],
            note=_result_note(found, label),
        )
        for label in found.labels
    ]


def _result_table(table: pd.DataFrame, recall: pd.DataFrame) -> Table:
    lesions = recall.groupby("arm")[list(_LESIONS)].mean()
    head = ["", "Runs", "Dice", "RVD", "Absolute RVD", *_LESIONS.values()]
    some_absent = table["absent"].max() > 0
    if some_absent:
        head += ["Absence found", "Dice, nnU-Net"]
    rows = []
    for arm, row in table.iterrows():
        found = lesions.loc[arm] if arm in lesions.index else {}
        rows.append(
            [
                str(arm),
                str(row["runs"]),
                *(
                    format_spread(row[f"{metric}_mean"], row[f"{metric}_std"])
                    for metric in ("dice", "rvd", "absolute_rvd")
                ),
                *(format_number(found.get(key, math.nan), 2) for key in _LESIONS),
                *(_absence(row) if some_absent else ()),
            ]
        )
    return Table(head=head, rows=rows)


def _absence(row: pd.Series) -> tuple[str, str]:
    return (
        format_spread(row["specificity_mean"], row["specificity_std"]),
        format_spread(row["nnunet_dice_mean"], row["nnunet_dice_std"]),
    )


def _result_note(found: Findings, label: str) -> str:
    note = "Mean over the cases of a run, then mean ± standard deviation over runs, where there are several."
    absent = int(found.summary.arms.loc[found.summary.arms["label"] == label, "absent"].max())
    if label == MEAN:
        return note + " Each case's Dice is the mean over its labels; 1 for a label that is absent and not predicted."
    if absent:
        note += f" {absent} cases without {label}: Dice is 1 where nothing is predicted and 0 where something is. "
        note += "Absence found: the share of these cases in which nothing is predicted. nnU-Net's own Dice leaves out "
        note += "the former, so that each arm's mean is over other cases."
    note += f" RVD = |P| / |G| - 1; {absent} cases without {label} have none and are left out."
    note += " A lesion is a connected component of the truth, found if one voxel of it is predicted; smaller half: "
    note += "below the median volume; false positive: a predicted component without a true voxel."
    note += (
        " F1: lesions and predicted components are matched one to one, for the largest sum of IoU over pairs with an "
    )
    note += f"IoU of at least {LEAST_IOU}; 2 x matches / (lesions + predicted components) over all cases of a run."
    if found.without_lesions:
        note += f" Lesions are not available for {len(found.without_lesions)} cases ({found.without_lesions[0]})."
    return note
