"""`nnUNetv2_hlfd demo`: the whole way from raw images to a distilled student, on a built-in phantom.

Teacher, student alone and HLFD are trained, and held-out cases predicted by stock nnU-Net, with the commands a user
would type. The phantom, one seed and a short training show the mechanics; they are no evidence for any method.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nnunetv2_hlfd import __version__
from nnunetv2_hlfd.datasets.phantom import write_phantom_dataset
from nnunetv2_hlfd.demo.report import LABELS, Model, write_report
from nnunetv2_hlfd.models.fold import FINAL, FoldFolder
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.steps import Step, Workspace, nnunet_environment, run_steps

DATASET_ID = "900"
DATASET = f"Dataset{DATASET_ID}_HLFDDemo"
PLANS = "nnUNetPlans_demo"
NUM_TRAINING, NUM_TEST = 15, 4
SIZE, SPACING, DATA_SEED = (20, 80, 80), (7.0, 4.3, 4.3), 1
SETTINGS = {
    "student": "resnet18_w2",
    "batch_size": "2",
    "num_epochs": "6",
    "num_iterations_per_epoch": "50",
    "num_val_iterations_per_epoch": "4",
    "initial_lr": "0.003",
    "augmentation": "paper",
    "save_every": "2",
    "seed": "1",
}
_NEXT = "To make your own model small: nnUNetv2_hlfd compress -m MODEL_FOLDER -i IMAGES -o FOLDER (no labels needed)"
MODELS = (
    Model("teacher", "nnUNetTrainerTeacher", "Teacher (nnU-Net)"),
    Model("student", "nnUNetTrainerStudent", "Student alone"),
    Model("hlfd", "nnUNetTrainerHLFD", "Student with HLFD"),
)


def run_demo(folder: Path, device: str | None = None) -> str:
    """Run what is not finished yet in `folder`, write result.md and result.png there.

    Args:
        folder: new, or that of an earlier run of this demo.
        device: cpu, cuda or mps; unset: cuda where available, else cpu.

    Returns:
        The text of result.md.

    Raises:
        UserError: for a folder with other contents or a device that is not there.
        StepFailedError: where a step fails; the message holds its log's last lines.
    """
    start = time.perf_counter()
    device = choose_device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type
    workspace = open_workspace(folder.resolve(), device)
    steps = demo_steps(workspace.folder, device)
    run_steps(workspace, steps)
    report = write_report(workspace.folder, DATASET, PLANS, MODELS, workspace.seconds)
    print(f"Finished in {time.perf_counter() - start:.0f} s\n\n{report}\n{_NEXT}", flush=True)
    return report


def open_workspace(folder: Path, device: str) -> Workspace:
    """The demo's folder, with nnU-Net's folders in it.

    Raises:
        UserError: where it holds something else, or a demo made with other settings.
    """
    environment = {
        **nnunet_environment(folder),
        "nnUNet_compile": "f",
        "nnUNet_def_n_proc": "2",  # each process imports torch; the cases are few and small
        "nnUNet_n_proc_DA": "2",  # planning divides by it
    }
    folders = ("raw", "preprocessed", "results", "predictions")
    return Workspace(folder, "demo", made_with(device), folders=folders, environment=environment)


def made_with(device: str) -> dict[str, Any]:
    """What decides the result: a folder made with something else is not gone on with."""
    return {
        "version": __version__,
        "device": device,
        "settings": SETTINGS,
        "seed": DATA_SEED,
        "size": SIZE,
        "spacing": SPACING,
        "cases": [NUM_TRAINING, NUM_TEST],
    }


def demo_steps(folder: Path, device: str) -> list[Step]:
    """All steps, in order."""
    raw, preprocessed = folder / "raw" / DATASET, folder / "preprocessed" / DATASET
    steps = [
        Step(
            name="data",
            title="Simulate CT cases",
            product=raw / "dataset.json",
            command=lambda: _simulate(raw),
        ),
        Step(
            name="preprocess",
            title="Plan and preprocess",
            product=preprocessed / "nnUNetPlans.json",
            command=lambda: _plan_and_preprocess(preprocessed),
        ),
        Step(
            name="plan",
            title="Write plans with a short schedule",
            product=preprocessed / f"{PLANS}.json",
            command=_plan_variant,
        ),
    ]
    steps += [_training(folder, model, device) for model in MODELS]
    steps += [_prediction(folder, model, device) for model in MODELS]
    return steps + [_evaluation(folder, model) for model in MODELS]


def _simulate(raw: Path) -> None:
    shutil.rmtree(raw, ignore_errors=True)  # what an interrupted run left
    write_phantom_dataset(raw, num_training=NUM_TRAINING, num_test=NUM_TEST, size=SIZE, spacing=SPACING, seed=DATA_SEED)


def _plan_and_preprocess(preprocessed: Path) -> Sequence[str]:
    shutil.rmtree(preprocessed, ignore_errors=True)
    return ("nnUNetv2_plan_and_preprocess", "-d", DATASET_ID, "-c", "2d", "-npfp", "2", "-np", "2")


def _plan_variant() -> Sequence[str]:
    settings = [word for name, value in SETTINGS.items() for word in (f"-{name}", value)]
    name = PLANS.removeprefix("nnUNetPlans_")
    return ("nnUNetv2_hlfd", "plan", "-d", DATASET_ID, "-name", name, *settings, "--overwrite")


def _training(folder: Path, model: Model, device: str) -> Step:
    fold = model.fold_folder(folder / "results" / DATASET, PLANS)

    def command() -> Sequence[str]:
        return (
            "nnUNetv2_hlfd",
            "train",
            DATASET_ID,
            "2d",
            "0",
            "-tr",
            model.trainer,
            "-p",
            PLANS,
            "-device",
            device,
            *_continuation(fold),
        )

    return Step(
        name=f"train_{model.name}",
        title=f"Train: {model.title}",
        product=fold.file(FINAL),
        command=command,
        total=int(SETTINGS["num_epochs"]),
        labels=list(LABELS),
        environment={"nnUNet_n_proc_DA": "0"},  # reproducible
    )


def _continuation(fold: FoldFolder) -> list[str]:
    """How to go on with a training that was interrupted, if it was; what is no training is removed."""
    flags = fold.continuation()
    if not flags:
        shutil.rmtree(fold.path, ignore_errors=True)
    return flags


def _prediction(folder: Path, model: Model, device: str) -> Step:
    output = folder / "predictions" / model.name
    command = (
        "nnUNetv2_predict",
        "-d",
        DATASET_ID,
        "-c",
        "2d",
        "-f",
        "0",
        "-tr",
        model.trainer,
        "-p",
        PLANS,
        "-i",
        str(folder / "raw" / DATASET / "imagesTs"),
        "-o",
        str(output),
        "-npp",
        "1",
        "-nps",
        "1",
        "-device",
        device,
    )
    return Step(
        name=f"predict_{model.name}",
        title=f"Predict held-out cases with stock nnU-Net: {model.title}",
        product=output / "dataset.json",
        command=lambda: command,
        total=NUM_TEST,
    )


def _evaluation(folder: Path, model: Model) -> Step:
    output = folder / "predictions" / model.name
    command = (
        "nnUNetv2_evaluate_folder",
        str(folder / "raw" / DATASET / "labelsTs"),
        str(output),
        "-djfile",
        str(output / "dataset.json"),
        "-pfile",
        str(output / "plans.json"),
        "-np",
        "1",
    )
    return Step(
        name=f"evaluate_{model.name}",
        title=f"Evaluate with nnU-Net: {model.title}",
        product=output / "summary.json",
        command=lambda: command,
    )
