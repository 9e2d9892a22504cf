"""Tiny phantom data sets, planned and preprocessed by nnU-Net itself."""

import copy
import json
import os
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.datasets.phantom import write_phantom_dataset

DATASET = "Dataset901_Phantom"
REGIONS_DATASET = "Dataset902_PhantomRegionsIgnore"
DATASETS = {
    "labels": DATASET,
    "regions": "Dataset903_PhantomRegions",
    "ignore": "Dataset904_PhantomIgnore",
    "regions_ignore": REGIONS_DATASET,
}
SHORT = {
    "num_epochs": 2,
    "num_iterations_per_epoch": 2,
    "num_val_iterations_per_epoch": 1,
    "save_every": 1,
    "seed": 1,
    "student": "resnet18_w8",
}


def use_folders(root: Path) -> None:
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir(exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(root / name)


def make_data_sets(root: Path) -> None:
    for mode, name in DATASETS.items():
        write_phantom_dataset(
            root / "raw" / name, num_training=6, num_test=1, size=(8, 48, 48), spacing=(10, 7.5, 7.5), label_mode=mode
        )
    _plan_and_preprocess([int(name[7:10]) for name in DATASETS.values()])


def plan(datasets: list[int]) -> None:
    """What nnUNetv2_plan_and_preprocess does with --no_pp, from a sample of the voxels."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiments

    processes, os.environ["nnUNet_n_proc_DA"] = os.environ["nnUNet_n_proc_DA"], "1"  # planning fails with 0
    for dataset in datasets:
        extractor = DatasetFingerprintExtractor(dataset, num_processes=1)
        extractor.num_foreground_voxels_for_intensitystats = 10**5  # 10**8 take ten seconds
        extractor.run()
    plan_experiments(datasets)
    os.environ["nnUNet_n_proc_DA"] = processes


def _plan_and_preprocess(datasets: list[int]) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess

    plan(datasets)
    for dataset in datasets:
        [plans_file] = Path(os.environ["nnUNet_preprocessed"]).glob(f"Dataset{dataset}_*/nnUNetPlans.json")
        plans = json.loads(plans_file.read_text())
        _add_cascade(plans)
        narrow(plans)
        plans_file.write_text(json.dumps(plans))
    preprocess(datasets, configurations=("2d", "3d_fullres", "3d_lowres"), num_processes=(1, 1, 1))


def _add_cascade(plans: dict[str, Any]) -> None:
    """3d_lowres and 3d_cascade_fullres, which nnU-Net plans for large images only, in the form that it gives them."""
    fullres = plans["configurations"]["3d_fullres"]
    plans["configurations"]["3d_lowres"] = {
        **copy.deepcopy(fullres),
        "data_identifier": "nnUNetPlans_3d_lowres",
        "spacing": [fullres["spacing"][0], *(2 * each for each in fullres["spacing"][1:])],
        "patch_size": [fullres["patch_size"][0], *(each // 2 for each in fullres["patch_size"][1:])],
        "next_stage": "3d_cascade_fullres",
    }
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}


def narrow(plans: dict[str, Any]) -> None:
    """Few channels and a batch of two: quick."""
    for configuration in plans["configurations"].values():
        if "architecture" in configuration:
            kwargs = configuration["architecture"]["arch_kwargs"]
            kwargs["features_per_stage"] = [min(8 * 2**i, 32) for i in range(kwargs["n_stages"])]
            configuration["batch_size"] = 2
