"""The matrix of nnU-Net's own integration tests: four kinds of labels times four configurations.

In every cell a student trains an epoch, is continued by nnU-Net for a second one and its validation, and predicts
through nnU-Net's console script.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from helpers import command, make_trainer, prediction, run_epoch, train_once
from phantom_data import DATASETS

CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
QUICK = (("regions_ignore", "3d_cascade_fullres"),)
TEACHER = "nnUNetTrainerTeacher"


@pytest.mark.parametrize(
    ("labels", "configuration"),
    [
        pytest.param(*cell, id="-".join(cell), marks=() if cell in QUICK else pytest.mark.slow)
        for cell in ((labels, configuration) for labels in DATASETS for configuration in CONFIGURATIONS)
    ],
)
def test_student_trains_resumes_and_predicts(nnunet, variant, train, tmp_path, labels, configuration):
    dataset, cascade = DATASETS[labels], configuration == "3d_cascade_fullres"
    teachers = variant("short", dataset=dataset)
    previous_stage = f"{TEACHER}__{teachers}__3d_lowres" if cascade else None
    if cascade:  # fold all predicts every case for the next stage
        train_once(nnunet, train, TEACHER, dataset=dataset, plans=teachers, configuration="3d_lowres", fold="all")
    train_once(nnunet, train, TEACHER, dataset=dataset, plans=teachers, configuration=configuration)
    plans = variant("cell", dataset=dataset, base=teachers, previous_stage=previous_stage)

    first = make_trainer(nnunet, "nnUNetTrainerHLFD", plans, dataset=dataset, configuration=configuration)
    first.on_train_start()
    run_epoch(first)
    adapters = dict(first.distiller.method.named_parameters())
    assert len(adapters) == 2 * 3  # weight and bias of a head on the stem and each of two mids
    assert all(each.grad.abs().sum() > 0 for each in adapters.values())
    [before] = _log(first.output_folder)

    fold = train("nnUNetTrainerHLFD", dataset=dataset, plans=plans, configuration=configuration, continue_training=True)
    rows = _log(fold)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert rows[0] == before
    assert all(float(row[term]) > 0 for row in rows for term in ("segmentation", "ufd", "ifd", "upd", "ipd"))
    assert (fold / "validation/summary.json").is_file()

    more = ()
    if cascade:
        _predict(nnunet, fold.parents[1] / previous_stage, "all", tmp_path / "lowres")
        more = ("-prev_stage_predictions", tmp_path / "lowres")
    _predict(nnunet, fold.parent, 0, tmp_path / "out", *more)
    [image_file] = (nnunet / "raw" / dataset / "imagesTs").glob("*.nii.gz")
    image = SimpleITK.ReadImage(str(image_file))
    labels = SimpleITK.ReadImage(str(tmp_path / "out" / image_file.name.replace("_0000", "")))
    assert labels.GetSize() == image.GetSize()
    assert set(np.unique(SimpleITK.GetArrayFromImage(labels))) <= {0, 1, 2}  # never the ignore label


def _predict(nnunet, model, fold, output, *more):
    images = nnunet / "raw" / model.parent.name / "imagesTs"
    command("nnUNetv2_predict", *prediction(model, images, output, folds=[fold]), *more)


def _log(folder):
    with (Path(folder) / "distillation_log.csv").open() as file:
        return list(csv.DictReader(file))
