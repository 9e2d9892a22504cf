"""What the rest of a study will take: step times measured now, on random data of the patch's size."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.datasets.dataset_json import read_dataset_json
from nnunetv2_hlfd.networks.choice import student_architecture
from nnunetv2_hlfd.study.runs import Run
from nnunetv2_hlfd.training.cost import checkpoint_bytes, forward_pass, training_step
from nnunetv2_hlfd.training.distillation_trainer import DistillationTrainer
from nnunetv2_hlfd.training.scheduled_trainer import nnUNetTrainerTeacher
from nnunetv2_hlfd.training.student_trainer import nnUNetTrainerStudent
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.json_file import read_json
from nnunetv2_hlfd.utilities.timing import seconds_of_each

_REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """Seconds of a training step and of a forward pass alone, and bytes of the checkpoints."""

    step: float
    forward: float
    checkpoints: int


class Estimator:
    """What a run still has to make, at the speed of this machine.

    A step of a network alone is its forward and backward pass; a live teacher adds its forward pass, for which the
    plans' own network stands where the study does not train it. Augmentation, validation and other programs on the
    machine are not in it.
    """

    def __init__(self, runs: Sequence[Run], device: str) -> None:
        folder = Path(str(nnUNet_preprocessed)) / runs[0].dataset
        self.plans = read_json(folder / f"{runs[0].plans}.json")
        self.dataset_json = read_dataset_json(folder / "dataset.json")
        self.device = choose_device(device)
        self._trained = {run.model_folder: run for run in runs}
        self._costs: dict[tuple[object, ...], _Cost] = {}

    def seconds(self, run: Run) -> float:
        """Of the epochs since the last checkpoint_latest.pth."""
        settings = run.settings
        epochs = settings.epochs if run.is_trained else run.epochs_done // settings.save_every * settings.save_every
        if epochs == settings.epochs:
            return 0.0
        step = self._measure(run).step
        if issubclass(run.trainer, DistillationTrainer) and settings.teacher_maps == "live" and run.teacher:
            step += self._of_teacher(run, run.teacher).forward
        return step * (settings.epochs - epochs) * settings.num_iterations_per_epoch

    def disk_bytes(self, run: Run) -> int:
        """Of the run's checkpoints."""
        return self._measure(run).checkpoints

    def _of_teacher(self, run: Run, folder: Path) -> _Cost:
        teacher = self._trained.get(folder)
        if teacher is None:
            return self._measure(replace(run, trainer=nnUNetTrainerTeacher))
        return self._measure(replace(teacher, given={**teacher.given, "batch_size": run.settings.batch_size}))

    def _measure(self, run: Run) -> _Cost:
        student = run.settings.student if issubclass(run.trainer, nnUNetTrainerStudent) else "plans"
        key = (run.trainer.build_network_architecture, student, run.settings.batch_size)
        if key not in self._costs:
            self._costs[key] = self._time(run, student)
        return self._costs[key]

    def _time(self, run: Run, student: str) -> _Cost:
        plans = deepcopy(self.plans)
        manager = PlansManager(plans)
        configuration = manager.get_configuration(run.configuration)
        channels = determine_num_input_channels(manager, configuration, self.dataset_json)
        heads = manager.get_label_manager(self.dataset_json).num_segmentation_heads
        plans["configurations"][run.configuration]["architecture"] = student_architecture(
            configuration.configuration["architecture"], student, configuration.patch_size, channels, heads
        )
        manager = PlansManager(plans)
        configuration = manager.get_configuration(run.configuration)
        network = run.trainer.build_network_architecture(manager, configuration, channels, heads, True).to(self.device)
        size = run.settings.batch_size or configuration.batch_size
        data = torch.rand(size, channels, *configuration.patch_size, device=self.device)
        return _Cost(
            step=self._median(training_step(network, data)),
            forward=self._median(forward_pass(network, data)),
            checkpoints=checkpoint_bytes(network),
        )

    def _median(self, call: Callable[[], Any]) -> float:
        return float(np.median(seconds_of_each(call, _REPEATS, self.device)))
