"""The label that a part of a report looks at."""

from dataclasses import dataclass

from nnunetv2_hlfd.report.cases import LabelValue
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.utilities.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Target:
    """The label that is looked for: its name, value (values of a region), and channel of the logits."""

    name: str
    value: LabelValue
    channel: int
    regions: bool
    ignore: int | None


def choose_target(model: Model, name: str | None) -> Target:
    """The label of this name, or (None, "") the last one of dataset.json: organs come before their tumors.

    Raises:
        UserError: for a name that is no label.
    """
    names = list(model.labels)
    name = name or names[-1]
    if name not in names:
        raise UserError(f"Expected one of the labels {', '.join(names)}, got '{name}'.")
    value = model.labels[name]
    regions = any(isinstance(each, tuple) and len(each) > 1 for each in model.labels.values())  # as nnU-Net tells
    number = value[0] if isinstance(value, tuple) else value
    return Target(
        name=name,
        value=value,
        channel=names.index(name) if regions else number,
        regions=regions,
        ignore=model.folder.dataset_json["labels"].get("ignore"),
    )
