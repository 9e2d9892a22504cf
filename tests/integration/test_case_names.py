"""Names of cases with dots, spaces and umlauts, and results recorded on Windows: teaching, reports."""

import json
import shutil
from types import SimpleNamespace

import pytest
from helpers import make_trainer, table

from nnunetv2_hlfd.cli.main import main

DATASET = "Dataset908_Names"
SOURCE = "Dataset901_Phantom"
NAMES = ["1.2.840.1", "1.2.840.2", "p.1", "p.2", "Müller (2) a", "x y & z"]


@pytest.fixture(scope="module")
def renamed(nnunet):
    """The preprocessed phantom with other names of cases: the folder, and old name -> new name."""
    folder = shutil.copytree(nnunet / "preprocessed" / SOURCE, nnunet / "preprocessed" / DATASET)
    splits = (folder / "splits_final.json").read_text() if (folder / "splits_final.json").is_file() else ""
    old = sorted(file.name.removesuffix(".nii.gz") for file in (folder / "gt_segmentations").iterdir())
    names = dict(zip(old, NAMES, strict=True))
    for before, after in names.items():
        for file in sorted(folder.rglob(f"{before}*")):
            file.rename(file.with_name(file.name.replace(before, after)))
        splits = splits.replace(f'"{before}"', json.dumps(after))
    if splits:
        (folder / "splits_final.json").write_text(splits)
    plans = folder / "nnUNetPlans.json"
    plans.write_text(json.dumps({**json.loads(plans.read_text()), "dataset_name": DATASET}))
    yield SimpleNamespace(folder=folder, names=names)
    shutil.rmtree(folder)
    shutil.rmtree(nnunet / "results" / DATASET, ignore_errors=True)


def recorded_on_windows(fold):
    """Let summary.json name its files as nnU-Net does on Windows."""
    summary = fold / "validation/summary.json"
    content = json.loads(summary.read_text())
    for case in content["metric_per_case"]:
        for key in ("prediction_file", "reference_file"):
            case[key] = "D:\\results\\" + case[key].replace("/", "\\")
    summary.write_text(json.dumps(content))


def test_a_teacher_with_such_names_teaches(renamed, nnunet, variant, teacher_2d, tmp_path, monkeypatch):
    teacher = shutil.copytree(teacher_2d.parent, tmp_path / "teacher", ignore=shutil.ignore_patterns("*.nii.gz"))
    text = (teacher / "fold_0/validation/summary.json").read_text()
    for before, after in renamed.names.items():
        text = text.replace(f"/{before}.nii.gz", f"/{after}.nii.gz")
    (teacher / "fold_0/validation/summary.json").write_text(text)
    recorded_on_windows(teacher / "fold_0")
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher))
    trainer = make_trainer(nnunet, "nnUNetTrainerKD", variant("names", dataset=DATASET), dataset=DATASET)
    trainer.on_train_start()
    assert not trainer.distiller.origin[0]["may_have_seen_validation_cases"]
    shutil.rmtree(trainer.output_folder_base)


@pytest.mark.slow
def test_models_with_such_names_are_reported_with_pictures_and_the_papers_evaluation(
    renamed, nnunet, variant, train, tmp_path, monkeypatch
):
    plans = variant("names.report", dataset=DATASET, num_epochs=1)
    folds = [train("nnUNetTrainerTeacher", dataset=DATASET, plans=plans, export_validation_probabilities=True)]
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(folds[0].parent))
    folds.append(train("nnUNetTrainerKD", dataset=DATASET, plans=plans, export_validation_probabilities=True))
    for fold in folds:
        recorded_on_windows(fold)
    models = [str(fold.parent) for fold in folds]
    assert main(["report", "-m", *models, "-o", str(tmp_path), "--pictures", "--paper_evaluation"]) == 0
    held_out = set(json.loads((renamed.folder / "splits_final.json").read_text())[0]["val"])
    for name in ("cases", "paper_evaluation", "lesions"):
        assert {row["case"] for row in table(tmp_path / f"{name}.csv")} == held_out, name
    assert (tmp_path / "overlay_worst.png").is_file()
