"""A tiny phantom data set, planned and preprocessed by nnU-Net itself, and helpers to train on it."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import phantom_data
import pytest
import torch
from fault_table import pytest_itemcollected, pytest_terminal_summary  # noqa: F401 (hooks)
from filelock import FileLock
from phantom_data import DATASET, SHORT, make_data_sets, use_folders
from processes import fork_what_is_spawned

from nnunetv2_hlfd import datasets
from nnunetv2_hlfd.plans.variants import write_variant
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search

# Reproducible and quick nnU-Net: augmentation in this process, no compilation, small export pools, one thread (more
# cost more than they save on tensors this small), small curves.
ENVIRONMENT = {
    "nnUNet_n_proc_DA": "0",
    "nnUNet_def_n_proc": "1",
    "nnUNet_compile": "f",
    "OMP_NUM_THREADS": "1",
    "MATPLOTLIBRC": str(Path(__file__).parent / "support/matplotlibrc"),
}


def pytest_configure() -> None:
    """Before any test module imports nnU-Net or matplotlib."""
    os.environ.update(ENVIRONMENT)
    for name in ("nnUNet_hlfd_teacher", "nnUNet_hlfd_trust_checkpoint", "nnUNet_hlfd_trust_imports"):
        os.environ.pop(name, None)
    extend_trainer_search()
    fork_what_is_spawned()
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread_again() -> Iterator[None]:
    """A command under test sets its own number of threads; another number changes results in their last bits."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A folder that all workers of a session share: pytest's cache, kept for the next session, where there is one."""
    if (cache := getattr(pytestconfig, "cache", None)) is not None:
        return cache.mkdir("nnunet")
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def nnunet(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> Path:
    """nnU-Net's three folders with the data sets of DATASETS, planned and preprocessed, for this worker.

    2d, (anisotropic) 3d_fullres, 3d_lowres and 3d_cascade_fullres; the plans' networks are narrowed to keep the tests
    quick. The preprocessed data are made once and shared, under the hash of what they are made by.
    """
    sources = [Path(phantom_data.__file__), *Path(datasets.__file__).parent.glob("*.py")]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources)) + version("nnunetv2").encode())
    made = shared_folder / key.hexdigest()[:16]
    root = tmp_path_factory.mktemp("nnunet")
    use_folders(root)
    with FileLock(made.with_suffix(".lock")):
        if made.is_dir():
            shutil.copytree(made, root, dirs_exist_ok=True)
        else:
            make_data_sets(root)
            unfinished = made.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(root, unfinished)
            unfinished.rename(made)
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


@pytest.fixture
def preprocessed(nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A preprocessed folder of the test's own, with nothing but the plans that nnU-Net has made."""
    source = nnunet / "preprocessed" / DATASET / "nnUNetPlans.json"
    folder = tmp_path / DATASET
    folder.mkdir()
    shutil.copy(source, folder)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    return folder


@pytest.fixture(scope="session")
def teacher_2d(train: Train, variant: Callable[..., str]) -> Path:
    """Fold folder of a trained 2d teacher under the plans variant `nnUNetPlans_short`."""
    return train("nnUNetTrainerTeacher", plans=variant("short"))


@pytest.fixture(scope="session")
def teacher_3d(train: Train, variant: Callable[..., str]) -> Path:
    """Fold folder of a trained anisotropic 3d teacher under the plans variant `nnUNetPlans_short`."""
    return train("nnUNetTrainerTeacher", configuration="3d_fullres", plans=variant("short"))
