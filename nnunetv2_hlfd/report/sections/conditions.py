"""What was compared, and under which conditions."""

from nnunetv2_hlfd.report.findings import Findings
from nnunetv2_hlfd.report.page import Section, Table
from nnunetv2_hlfd.report.provenance import different_rows, provenance

DIFFERS = "≠ "


def conditions(found: Findings) -> list[Section]:
    """A column for each arm; what differs between the students is marked."""
    columns = [
        provenance(arm, found.costs[arm.name].size, found.curves.get(arm.name, ()), found.folds) for arm in found.arms
    ]
    marks = dict.fromkeys(different_rows(columns[1:]), DIFFERS)
    rows = [[f"{marks.get(name, '')}{name}", *(column[name] for column in columns)] for name in columns[0]]
    return [
        Section(
            title="What was compared",
            content=[_cases(found), Table(head=["", *(arm.name for arm in found.arms)], rows=rows, is_text=True)],
            note=f"{DIFFERS.strip()} marks what differs between the students. A run is one model folder with one seed. "
            "Checkpoint measured: what sizes, curves and pictures are made from, the one of the end of the training, "
            "else the best one; results are those that nnU-Net has written.",
        )
    ]


def _cases(found: Findings) -> str:
    folds = ", ".join(map(str, found.folds))
    left_out = sorted({fold for arm in found.arms for model in arm.models for fold in model.folds} - set(found.folds))
    text = f"nnU-Net's own validation of fold {folds}, {found.num_cases} cases, each predicted once a run."
    if left_out:
        text += f" Left out: fold {', '.join(map(str, left_out))}, which not every model has."
    return text
