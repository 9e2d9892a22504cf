"""A tiny phantom data set, planned and preprocessed by nnU-Net itself, and helpers to train on it."""

import contextlib
import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2_hlfd import datasets
from nnunetv2_hlfd.cli.train import extend_trainer_search
from nnunetv2_hlfd.datasets.phantom import write_phantom_dataset
from nnunetv2_hlfd.plans.variants import write_variant

DATASET = "Dataset901_Phantom"
REGIONS_DATASET = "Dataset902_PhantomRegionsIgnore"
DATASETS = {
    "labels": DATASET,
    "regions": "Dataset903_PhantomRegions",
    "ignore": "Dataset904_PhantomIgnore",
    "regions_ignore": REGIONS_DATASET,
}
SHORT = {"num_epochs": 2, "num_iterations_per_epoch": 2, "num_val_iterations_per_epoch": 1, "save_every": 1, "seed": 1,
         "student": "resnet18_w8"}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _single_process() -> None:
    """Reproducible nnU-Net: augmentation in this process, no compilation, small export pools."""
    values = {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    os.environ.update(values)
    os.environ.pop("nnUNet_hlfd_teacher", None)
    os.environ.pop("nnUNet_hlfd_trust_checkpoint", None)
    extend_trainer_search()
    torch.set_num_threads(1)  # more cost more than they save on tensors this small


@pytest.fixture(autouse=True)
def _one_thread_again() -> Iterator[None]:
    """A command under test sets its own number of threads; another number changes results in their last bits."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def nnunet(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """nnU-Net's three folders with the data sets of DATASETS, planned and preprocessed.

    2d, (anisotropic) 3d_fullres, 3d_lowres and 3d_cascade_fullres; the plans' networks are narrowed to keep the tests
    quick. The preprocessed data are kept in pytest's cache for the next session, under the hash of what they are made
    by.
    """
    sources = [Path(__file__), *Path(datasets.__file__).parent.glob("*.py")]
    key = hashlib.sha256(b"".join(each.read_bytes() for each in sorted(sources)) + version("nnunetv2").encode())
    cached = Path(pytestconfig.cache.mkdir("nnunet")) / key.hexdigest()[:16]
    root = tmp_path_factory.mktemp("nnunet")
    if not cached.is_dir():
        _make_data_sets(root)
        temporary = cached.with_suffix(f".{os.getpid()}")
        shutil.copytree(root, temporary)
        with contextlib.suppress(OSError):  # another session was quicker
            temporary.rename(cached)
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        shutil.copytree(cached, root, dirs_exist_ok=True)
    _use_folders(root)
    return root


def _use_folders(root: Path) -> None:
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir(exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(root / name)


def _make_data_sets(root: Path) -> None:
    _use_folders(root)
    for mode, name in DATASETS.items():
        write_phantom_dataset(
            root / "raw" / name, num_training=6, num_test=1, size=(8, 48, 48), spacing=(10, 7.5, 7.5), label_mode=mode
        )
    _plan_and_preprocess([int(name[7:10]) for name in DATASETS.values()])


def _plan_and_preprocess(datasets: list[int]) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    processes, os.environ["nnUNet_n_proc_DA"] = os.environ["nnUNet_n_proc_DA"], "1"  # planning fails with 0
    extract_fingerprints(datasets, num_processes=1)
    plan_experiments(datasets)
    os.environ["nnUNet_n_proc_DA"] = processes
    for dataset in datasets:
        [plans_file] = Path(os.environ["nnUNet_preprocessed"]).glob(f"Dataset{dataset}_*/nnUNetPlans.json")
        plans = json.loads(plans_file.read_text())
        _add_cascade(plans)
        _narrow(plans)
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


def _narrow(plans: dict[str, Any]) -> None:
    for configuration in plans["configurations"].values():
        if "architecture" in configuration:
            kwargs = configuration["architecture"]["arch_kwargs"]
            kwargs["features_per_stage"] = [min(8 * 2**i, 32) for i in range(kwargs["n_stages"])]
            configuration["batch_size"] = 2


Train = Callable[..., Path]


@pytest.fixture(scope="session")
def train(nnunet: Path) -> Train:
    """Train through nnU-Net's own `run_training` in this process; returns the fold's folder."""

    def run(
        trainer: str, *, configuration: str = "2d", dataset: str = DATASET, plans: str = "nnUNetPlans",
        fold: int | str = 0, **flags: bool,
    ) -> Path:  # fmt: skip
        from nnunetv2.run.run_training import run_training

        run_training(dataset, configuration, fold, trainer, plans, device=torch.device("cpu"), **flags)
        return nnunet / "results" / dataset / f"{trainer}__{plans}__{configuration}" / f"fold_{fold}"

    return run


@pytest.fixture(scope="session")
def variant(nnunet: Path) -> Callable[..., str]:
    """Write a plans variant with short-run settings and return its plans name."""

    def write(name: str, *, dataset: str = DATASET, base: str = "nnUNetPlans", **settings: object) -> str:
        return write_variant(dataset, base, name, {**SHORT, **settings}, overwrite=True).stem

    return write


@pytest.fixture(scope="session")
def teacher_2d(train: Train, variant: Callable[..., str]) -> Path:
    """Fold folder of a trained 2d teacher under the plans variant `nnUNetPlans_short`."""
    return train("nnUNetTrainerTeacher", plans=variant("short"))


@pytest.fixture(scope="session")
def teacher_3d(train: Train, variant: Callable[..., str]) -> Path:
    """Fold folder of a trained anisotropic 3d teacher under the plans variant `nnUNetPlans_short`."""
    return train("nnUNetTrainerTeacher", configuration="3d_fullres", plans=variant("short"))
