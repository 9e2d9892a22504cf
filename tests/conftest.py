"""A tiny phantom data set, planned and preprocessed by nnU-Net itself, and helpers to train on it."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import phantom_data
import pytest
import torch
from phantom_data import DATASET, SHORT, make_data_sets, use_folders

from nnunetv2_hlfd import datasets
from nnunetv2_hlfd.plans.variants import write_variant
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search


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
    sources = [Path(phantom_data.__file__), *Path(datasets.__file__).parent.glob("*.py")]
    key = hashlib.sha256(b"".join(each.read_bytes() for each in sorted(sources)) + version("nnunetv2").encode())
    cached = Path(pytestconfig.cache.mkdir("nnunet")) / key.hexdigest()[:16]
    root = tmp_path_factory.mktemp("nnunet")
    if not cached.is_dir():
        make_data_sets(root)
        temporary = cached.with_suffix(f".{os.getpid()}")
        shutil.copytree(root, temporary)
        with contextlib.suppress(OSError):  # another session was quicker
            temporary.rename(cached)
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        shutil.copytree(cached, root, dirs_exist_ok=True)
    use_folders(root)
    return root


Train = Callable[..., Path]


@pytest.fixture(scope="session")
def train(nnunet: Path) -> Train:
    """Train through nnU-Net's own `run_training` in this process; returns the fold's folder."""

    def run(
        trainer: str,
        *,
        configuration: str = "2d",
        dataset: str = DATASET,
        plans: str = "nnUNetPlans",
        fold: int | str = 0,
        **flags: bool,
    ) -> Path:
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
