"""May this teacher teach this student? Checked before any training, each refusal says what to change."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.models.fold import FoldFolder
from nnunetv2_hlfd.models.split import validated_cases
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.text import some_names

_SPACING = "spacing"


def check_compatible(
    student_plans: PlansManager,
    teacher_plans: PlansManager,
    configurations: tuple[str, str],
    dataset_jsons: tuple[Mapping[str, Any], Mapping[str, Any]],
    teacher_folder: Path,
    *,
    same_spacing: bool = True,
) -> None:
    """Compare what student and teacher must share: both see the same batch and their outputs are compared.

    Args:
        student_plans: of the student.
        teacher_plans: of the teacher.
        configurations: the student's and the teacher's.
        dataset_jsons: the student's and the teacher's.
        teacher_folder: named in messages.
        same_spacing: whether the teacher's network sees the student's images. Stored maps lie on the student's grid,
            whatever the teacher's was.

    Raises:
        UserError: listing everything that differs.
    """
    student, teacher = (
        _contract(plans, configuration, dataset_json)
        for plans, configuration, dataset_json in zip(
            (student_plans, teacher_plans), configurations, dataset_jsons, strict=True
        )
    )
    differences = [
        f"{name}: the student has {_text(student.get(name))}, the teacher {_text(teacher.get(name))}"
        for name in {**student, **teacher}
        if (same_spacing or name != _SPACING) and not _agree(student.get(name), teacher.get(name))
    ]
    if differences:
        raise UserError(
            f"The teacher in {teacher_folder} does not fit this student:\n  "
            + "\n  ".join(differences)
            + "\nTrain the teacher on the same data set and plans, or plan the student to match (nnUNetv2_hlfd plan)."
        )


def _agree(one: Any, other: Any) -> bool:
    """Whether two sides are equal; spacings as nnU-Net compares them."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and np.allclose(one, other)
    return bool(one == other)


def _text(value: Any) -> str:
    return str(value.tolist() if isinstance(value, np.ndarray) else value)


def check_patch(patch_size: Sequence[int], stride: Sequence[int], teacher_folder: Path) -> None:
    """The student's patch goes through the teacher, so the teacher's total strides must divide it.

    Raises:
        UserError: with both numbers.
    """
    if any(extent % step or extent < step for extent, step in zip(patch_size, stride, strict=True)):
        raise UserError(
            f"The student's patch {list(patch_size)} is too small or not divisible by the total strides "
            f"{list(stride)} of the teacher in {teacher_folder}. Set the configuration's patch_size in the plans to a "
            f"multiple of these."
        )


def check_validation_cases(student_cases: Sequence[str], fold_folder: Path, file_ending: str) -> None:
    """The teacher must have been validated on just the student's validation cases: others it was trained on.

    Args:
        student_cases: that the student's fold holds out.
        fold_folder: of the teacher.
        file_ending: of the teacher's images.

    Raises:
        UserError: where the teacher's validation is missing or names other cases.
    """
    teacher_cases = validated_cases(FoldFolder(fold_folder), file_ending)
    if not teacher_cases:
        raise UserError(
            f"Cannot tell which cases the teacher in {fold_folder} has not seen: it has no validation results. Run its "
            f"nnUNetv2_train command again with --val. If you know that it has not seen this fold's validation cases, "
            f"take it as it is with: nnUNetv2_hlfd plan ... -teacher_fold {fold_folder.name.removeprefix('fold_')} "
            f"(recorded, with a warning)."
        )
    unseen, others = set(teacher_cases), set(student_cases)
    if unseen != others:
        student_only, teacher_only = some_names(others - unseen), some_names(unseen - others)
        raise UserError(
            f"The teacher in {fold_folder} was validated on other cases than this student's fold holds out: "
            f"{student_only} only in the student's, {teacher_only} only in the teacher's. Either "
            f"splits_final.json changed or its validation is incomplete (run it with --val). Validating on cases that "
            f"the teacher has learned from would be wrong; to do so anyway, set teacher_fold explicitly (recorded)."
        )


def _labels(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Names and values of labels, which come in the order of their values; regions in that of the network's channels.

    nnU-Net numbers the channels of regions in the order of dataset.json, without background and ignore label; those of
    plain labels by their values.
    """
    pairs = [[name, _value(value)] for name, value in labels.items()]
    if not any(isinstance(value, list) for _, value in pairs):
        return {"labels (names and values)": sorted(pairs, key=lambda pair: (pair[1], pair[0]))}
    others = [pair for pair in pairs if pair[0] == "ignore" or pair[1] == 0]
    return {
        "regions (names, values and order)": [pair for pair in pairs if pair not in others],
        "background and ignore label": sorted(others),
    }


def _value(value: Any) -> int | list[int]:
    """A label, also where it is written as a region of one, or the sorted labels of a region."""
    labels = sorted({int(label) for label in value} if isinstance(value, list | tuple) else {int(value)})
    return labels if len(labels) > 1 else labels[0]


def _contract(plans: PlansManager, configuration: str, dataset_json: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that has to agree, in comparable form."""
    config = plans.get_configuration(configuration)
    ct_channels = [i for i, scheme in enumerate(config.normalization_schemes) if scheme == "CTNormalization"]
    intensities = plans.foreground_intensity_properties_per_channel if ct_channels else {}
    return {
        **_labels(dataset_json["labels"]),
        "regions_class_order": dataset_json.get("regions_class_order"),
        "channel_names": dict(dataset_json.get("channel_names", dataset_json.get("modality", {}))),
        "dimension": f"{len(config.patch_size)}d",
        "input of a previous stage (cascade)": config.previous_stage_name is not None,
        _SPACING: np.array(config.spacing, float),
        "transpose_forward": list(plans.transpose_forward),
        "normalization_schemes": list(config.normalization_schemes),
        "use_mask_for_norm": list(config.use_mask_for_norm),
        "CT intensity properties": {
            str(i): {key: round(float(value), 4) for key, value in sorted(intensities[str(i)].items())}
            for i in ct_channels
        },
    }
