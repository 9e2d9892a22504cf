"""What the rest of a study will take: step times measured now, on random data of the patch's size."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn

from nnunetv2_hlfd.networks.choice import student_architecture
from nnunetv2_hlfd.study.runs import Run
from nnunetv2_hlfd.training.distillation_trainer import DistillationTrainer
from nnunetv2_hlfd.training.student_trainer import nnUNetTrainerStudent
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.json_file import read_json
from nnunetv2_hlfd.utilities.timing import seconds_of_each

_REPEATS = 3


class Estimator:
    """Seconds of the steps that a run still has to make.

    A step of a network alone is its forward and backward pass; a live teacher adds its forward pass, for which the
    plans' own network stands. Augmentation, validation and other programs on the machine are not in it.
    """

    def __init__(self, runs: Sequence[Run], device: str) -> None:
        folder = Path(str(nnUNet_preprocessed)) / runs[0].dataset
        self.plans = read_json(folder / f"{runs[0].plans}.json")
        self.dataset_json = read_json(folder / "dataset.json")
        self.device = choose_device(device)
        self._seconds: dict[tuple[object, ...], tuple[float, float]] = {}

    def seconds(self, run: Run) -> float:
        """Of the epochs since the last checkpoint_latest.pth."""
        settings = run.settings
        epochs = settings.epochs if run.is_trained else run.epochs_done // settings.save_every * settings.save_every
        if epochs == settings.epochs:
            return 0.0
        step, _ = self._measure(run, settings.student if issubclass(run.trainer, nnUNetTrainerStudent) else "plans")
        if issubclass(run.trainer, DistillationTrainer) and settings.teacher_maps == "live":
            step += self._measure(run, "plans")[1]
        return step * (settings.epochs - epochs) * settings.num_iterations_per_epoch

    def _measure(self, run: Run, student: str) -> tuple[float, float]:
        """Seconds of a step and of a forward pass alone."""
        key = (run.trainer.build_network_architecture, student, run.settings.batch_size)
        if key not in self._seconds:
            self._seconds[key] = self._time(run, student)
        return self._seconds[key]

    def _time(self, run: Run, student: str) -> tuple[float, float]:
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
        return self._median(lambda: _step(network, data)), self._median(lambda: _forward(network, data))

    def _median(self, call: Callable[[], Any]) -> float:
        return float(np.median(seconds_of_each(call, _REPEATS, self.device)))


def _step(network: nn.Module, data: Tensor) -> None:
    network.zero_grad(set_to_none=True)
    outputs = network(data)
    maps = outputs if isinstance(outputs, list | tuple) else [outputs]  # with deep supervision or without
    torch.stack([logits.float().square().mean() for logits in maps]).sum().backward()


@torch.no_grad()
def _forward(network: nn.Module, data: Tensor) -> None:
    network(data)
