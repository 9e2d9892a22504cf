"""A series of damaged files through the package's own loaders, in a process of its own: `run(main, ...)`."""

import collections
import contextlib
import copy
import io
import json
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from damage import damage_checkpoint, damage_json, saved
from helpers import make_trainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.distillation.method import ALL_NEEDS
from nnunetv2_hlfd.models.checkpoints import read_checkpoint
from nnunetv2_hlfd.networks.size import build_network
from nnunetv2_hlfd.plans.variants import write_variant
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.teacher.teacher import StudentSide, load_teacher

DATASET = "Dataset901_Phantom"
SHARES = {
    "checkpoint": 48,
    "teacher checkpoint": 12,
    "teacher plans": 20,
    "teacher dataset.json": 12,
    "own plans": 5,
    "resumed checkpoint": 3,
}
SECONDS = 30  # of the processor; a sample that takes longer hangs
HEADROOM = 3 * 2**30  # address space beyond that of a good sample


class HangError(BaseException):
    """A sample took longer than SECONDS."""


class Series:
    """The good files, and one damaged copy after the other through a loader."""

    def __init__(self, work: Path, model: Path, checkpoint: Path) -> None:
        self.work, self.root = work, Path(os.environ["nnUNet_results"]).parent
        self.marker = work / "marker"
        self.folder = work / "model"
        self.plans = json.loads((model / "plans.json").read_text())
        self.dataset = json.loads((model / "dataset.json").read_text())
        self.own_plans = json.loads((self.root / "preprocessed" / DATASET / "nnUNetPlans_short.json").read_text())
        self.student = StudentSide(
            plans=PlansManager(copy.deepcopy(self.plans)),
            plans_names=["nnUNetPlans"],
            configuration="2d",
            dataset_json=copy.deepcopy(self.dataset),
            fold=0,
            validation_cases=[],
            results_folder=work,
        )
        self.resumed = read_checkpoint(checkpoint)
        self.teacher = self._small_teacher()

    def _small_teacher(self) -> dict[str, Any]:
        kwargs = self.plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
        for key in ("kernel_sizes", "strides"):
            kwargs[key] = kwargs[key][:3]
        kwargs |= {
            "n_stages": 3,
            "features_per_stage": [2, 3, 4],
            "n_conv_per_stage": [1, 1, 1],
            "n_conv_per_stage_decoder": [1, 1],
        }
        network = build_network(self.plans["configurations"]["2d"]["architecture"], 1, 3)
        keys = (
            "optimizer_state",
            "grad_scaler_state",
            "logging",
            "_best_ema",
            "current_epoch",
            "trainer_name",
            "inference_allowed_mirroring_axes",
        )
        return {
            **{key: self.resumed[key] for key in keys if key != "optimizer_state"},
            "network_weights": network.state_dict(),
            "optimizer_state": {"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 0.1}]},
            "init_args": {"plans": self.plans, "configuration": "2d", "fold": 0, "dataset_json": self.dataset},
        }

    def load(self, kind: str, generator: random.Random | None) -> None:
        """Load files of which that of `kind` is damaged; None leaves it whole."""
        if kind == "own plans":
            return self._own_plans(generator)
        if kind == "resumed checkpoint":
            file = self.work / "checkpoint_latest.pth"
            file.write_bytes(self._checkpoint(self.resumed, generator))
            trainer = make_trainer(self.root, "nnUNetTrainerHLFD", "nnUNetPlans_short", continue_training=True)
            return trainer.load_checkpoint(str(file))
        if kind == "checkpoint":
            file = self.work / "checkpoint_best.pth"
            file.write_bytes(self._checkpoint(self.teacher, generator))
            read_checkpoint(file)
            return None
        (self.folder / "fold_0").mkdir(parents=True, exist_ok=True)
        for name, content in (("plans", self.plans), ("dataset", self.dataset)):
            damaged = generator is not None and kind.startswith(f"teacher {name}")
            text = damage_json(content, generator) if damaged else json.dumps(content).encode()
            (self.folder / f"{name}.json").write_bytes(text)
        damaged = generator if kind == "teacher checkpoint" else None
        (self.folder / "fold_0" / "checkpoint_final.pth").write_bytes(self._checkpoint(self.teacher, damaged))
        os.environ["nnUNet_hlfd_teacher"] = str(self.folder)
        load_teacher(self.student, Settings(teacher_fold=0), {"HLFD": ALL_NEEDS})
        return None

    def _checkpoint(self, content: dict[str, Any], generator: random.Random | None) -> bytes:
        return saved(content) if generator is None else damage_checkpoint(content, str(self.marker), generator)

    def _own_plans(self, generator: random.Random | None) -> None:
        """`nnUNetv2_hlfd plan` on damaged plans, then a trainer with the variant."""
        base = self.root / "preprocessed" / DATASET / "Damaged.json"
        whole = json.dumps(self.own_plans).encode()
        base.write_bytes(whole if generator is None else damage_json(self.own_plans, generator))
        write_variant(DATASET, "Damaged", "x", {}, overwrite=True)
        make_trainer(self.root, "nnUNetTrainerStudent", "Damaged_x")


def load_all(series: Series, samples: int, seed: int, shares: Mapping[str, int]) -> dict[str, Any]:
    """Load the samples of kinds with shares; a failure is anything but a loaded sample or a ValueError."""
    for kind in shares:
        series.load(kind, None)
    memory = _peak_memory()
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + HEADROOM,) * 2)
    counts: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in shares}
    failures, slowest = [], 0.0
    for number in range(samples):
        generator = random.Random(f"{seed}-{number}")
        [kind] = generator.choices(list(shares), weights=list(shares.values()))
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            series.load(kind, generator)
            counts[kind]["loaded"] += 1
        except ValueError:
            counts[kind]["refused"] += 1
        except BaseException as error:
            failures.append(
                {
                    "number": number,
                    "kind": kind,
                    "error": repr(error)[:300],
                    "where": traceback.format_exc().splitlines()[-7:],
                }
            )
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        slowest = max(slowest, time.process_time() - start)
        if series.marker.exists():
            failures.append({"number": number, "kind": kind, "error": "code was run"})
            shutil.rmtree(series.marker) if series.marker.is_dir() else series.marker.unlink()
    return {
        "samples": {kind: dict(each) for kind, each in counts.items()},
        "failures": failures,
        "slowest_seconds": round(slowest, 2),
        "memory_growth_mib": round((_peak_memory() - memory) / 2**20),
    }


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _hang(*_: object) -> None:
    raise HangError


def main(model: Path, checkpoint: Path, samples: int, seed: int, only: str = "") -> None:
    """Print as JSON what came out.

    Args:
        model: folder of a trained teacher.
        checkpoint: of an interrupted nnUNetTrainerHLFD with it.
        samples: number of damaged files.
        seed: of the damage.
        only: the kind of all files; unset: each of SHARES.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, _hang)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        result = load_all(Series(Path(folder), model, checkpoint), samples, seed, {only: 1} if only else SHARES)
    print(json.dumps(result, indent=1))
