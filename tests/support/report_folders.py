"""Model folders as nnU-Net leaves them, with validation results made up, and nothing else."""

import json
from pathlib import Path

import numpy as np
import SimpleITK

from nnunetv2_hlfd.report.models import read_models

NAMES = {"labels": {"kidney": 1, "tumor": 2}, "regions": {"whole": [1, 2], "tumor": 2}, "one": {"lesion": 1}}


def metrics(dice, n_pred, n_ref):
    """What nnU-Net writes for one label of one case."""
    if np.isnan(dice):  # neither truth nor prediction has the label
        n_pred = n_ref = 0
    true_positive = 0 if np.isnan(dice) else dice * (n_pred + n_ref) / 2
    return {
        "Dice": dice,
        "IoU": dice,
        "TP": true_positive,
        "FP": n_pred - true_positive,
        "FN": n_ref - true_positive,
        "TN": 0,
        "n_pred": n_pred,
        "n_ref": n_ref,
    }


def key(value):
    return str(tuple(value)) if isinstance(value, list) else str(value)


def write_model(
    parent,
    trainer,
    dice,
    *,
    plans="nnUNetPlans",
    kind="one",
    folds=(0,),
    settings=None,
    seed=None,
    title=None,
    teacher=None,
    n_pred=100,
    n_ref=100,
    seen=False,
):
    """Write a model folder; returns it.

    Args:
        dice: fold -> case -> Dice of each label in order, or case -> Dice for fold 0.
        settings: this package's; None: a model of stock nnU-Net, without record.
        n_pred, n_ref: voxels of the label in every case; 0 of both where Dice is NaN.
    """
    folder = Path(parent) / f"{trainer}__{plans}__2d"
    labels = NAMES[kind]
    content = {
        "plans_name": plans,
        "dataset_name": "Dataset901_Made",
        "configurations": {"2d": {"architecture": {}}},
        "image_reader_writer": "SimpleITKIO",
    }
    if settings is not None:
        content["hlfd"] = {"base_plans": "nnUNetPlans", "trainer": trainer, "settings": {**settings, "seed": seed}}
    if len(folds) == 1 and folds[0] not in dice:
        dice = {folds[0]: dice}
    for fold in folds:
        validation = folder / f"fold_{fold}" / "validation"
        validation.mkdir(parents=True)
        cases = [
            {
                "reference_file": f"/gone/{case}.nii.gz",
                "prediction_file": f"/gone/{case}.nii.gz",
                "metrics": {
                    key(value): metrics(float(each), n_pred, n_ref)
                    for value, each in zip(labels.values(), np.atleast_1d(values), strict=True)
                },
            }
            for case, values in dice[fold].items()
        ]
        (validation / "summary.json").write_text(json.dumps({"metric_per_case": cases}))
        if settings is not None:
            record = {"trainer": trainer, "settings": {**settings, "seed": seed}, "versions": {"nnunetv2_hlfd": "1"}}
            if title:
                network = {"folder": f"/x/{teacher or 'teacher'}", "may_have_seen_validation_cases": seen}
                record |= {"method": {"title": title}, "teacher": {"networks": [network]}}
            (folder / f"fold_{fold}" / "distillation.json").write_text(json.dumps(record))
    (folder / "plans.json").write_text(json.dumps(content))
    (folder / "dataset.json").write_text(
        json.dumps({"labels": {"background": 0, **labels}, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}})
    )
    return folder


def cases(*values):
    """Case -> Dice."""
    return {f"case_{index:03d}": value for index, value in enumerate(values)}


def write_map(file, array):
    """A label map."""
    file.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.asarray(array, dtype=np.uint8)), str(file))


def volume(*boxes, size=(4, 12, 12)):
    """Boxes of (label, slices...), the later ones on top."""
    array = np.zeros(size, dtype=int)
    for label, *where in boxes:
        array[tuple(slice(*each) for each in where)] = label
    return array


def write_scene(parent, truth, *predictions, kind="one", ignore=None):
    """Write the true and each model's label map of one case; returns the models.

    nnUNet_preprocessed has to be PARENT/preprocessed.
    """
    write_map(parent / "preprocessed/Dataset901_Made/gt_segmentations/case_000.nii.gz", truth)
    folders = []
    for index, prediction in enumerate(predictions):
        dice = cases(0.5 if kind == "one" else (0.5, 0.5))
        folder = write_model(parent, "nnUNetTrainer", dice, plans=f"p{index}", kind=kind)
        write_map(folder / "fold_0/validation/case_000.nii.gz", prediction)
        if ignore is not None:
            content = json.loads((folder / "dataset.json").read_text())
            content["labels"]["ignore"] = ignore
            (folder / "dataset.json").write_text(json.dumps(content))
        folders.append(folder)
    return read_models(folders)
