"""The pass of a teacher over a student's training cases, after which its maps are stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager, convert_labelmap_to_one_hot
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from nnunetv2_hlfd.deploy.predictor import Predictor
from nnunetv2_hlfd.networks.size import measure_network
from nnunetv2_hlfd.teacher.checkpoint import TeacherCheckpoint
from nnunetv2_hlfd.teacher.stored.description import Description
from nnunetv2_hlfd.teacher.stored.encoding import encode
from nnunetv2_hlfd.teacher.stored.folder import MapsFolder
from nnunetv2_hlfd.utilities.timing import seconds_of_each

_TIMED_SLICES = 8  # of a 2d teacher


@dataclass(frozen=True, kw_only=True)
class Student:
    """Whose training cases are wanted, and who teaches it.

    Attributes:
        dataset: nnU-Net's, of the training cases.
        labels: of the data set.
        patch_size: of the student.
        teacher_maps: stored or crossfit.
        checkpoints: of the teacher.
    """

    dataset: Any
    labels: LabelManager
    patch_size: Sequence[int]
    teacher_maps: str
    checkpoints: Sequence[TeacherCheckpoint]

    def networks(self, case: str) -> list[int]:
        """Which of the teacher's networks make the map of a case: all, or those that have not learned from it."""
        numbers = range(len(self.checkpoints))
        if self.teacher_maps == "stored":
            return list(numbers)
        return [number for number in numbers if case in self.checkpoints[number].held_out]


class TeacherPass:
    """The teacher's networks, and the maps that they have made and have to make.

    Args:
        student: whose maps they are.
        device: of the networks.
        step_size: of the sliding window, in patches.
        mirroring: average over mirrored copies, where the teacher allows it.
    """

    def __init__(self, student: Student, device: torch.device, step_size: float, mirroring: bool) -> None:
        self.student, self.device = student, device
        self.predictors = [
            Predictor(
                checkpoint.model.path,
                folds=[checkpoint.file.parent.name.removeprefix("fold_")],
                checkpoint=checkpoint.file.name,
                device=device,
                step_size=step_size,
                mirroring=mirroring,
            )
            for checkpoint in student.checkpoints
        ]
        first = student.checkpoints[0]
        channels, *patch_size = first.model.input_shape
        size = measure_network(first.model.network(first.file).to(device), patch_size, channels)
        self.maps = MapsFolder.for_teacher(
            Path(student.dataset.source_folder),
            Description(
                teacher_maps=student.teacher_maps,
                step_size=step_size,
                mirroring=mirroring,
                channels=student.labels.num_segmentation_heads,
                regions=student.labels.has_regions,
                networks=[checkpoint.origin for checkpoint in student.checkpoints],
                parameters=size.parameters,
                macs=size.macs,
                patch_size=patch_size,
            ),
        )
        cases = student.dataset.identifiers
        self.missing = [case for case in cases if self.maps.state(case, student.dataset) != "whole"]

    def estimate(self) -> str:
        """How much is to be done, from one patch that is predicted."""
        shapes = {case: self._image(case).shape for case in self.missing}
        largest = self.student.labels.num_segmentation_heads * sum(prod(shape[1:]) for shape in shapes.values())
        tiles = sum(self._tiles(shape) * len(self.student.networks(case)) for case, shape in shapes.items())
        return (
            f"{len(self.missing)} cases, about {tiles * self._seconds_of_tile() / 60:.2g} minutes, at most "
            f"{largest / 1e9:.2g} GB in {self.maps.path}"
        )

    def run(self) -> None:
        """Make the maps that are missing; stopped at any moment, it goes on from there."""
        for case in tqdm(self.missing, desc="Teaching", unit="case", disable=None):
            networks = self.student.networks(case)
            codes = encode(self._logits(case, networks), self.student.labels.has_regions)
            self.maps.add(
                case, codes.numpy(), self.student.dataset, patch_size=self.student.patch_size, networks=networks
            )

    def _logits(self, case: str, networks: Sequence[int]) -> Tensor:
        """Logits (K, z, y, x) as prediction has them: the mean over the networks."""
        image = torch.from_numpy(self._whole_image(case))
        predicted = [self.predictors[number].predict_logits_from_preprocessed_data(image) for number in networks]
        return predicted[0] if len(predicted) == 1 else torch.stack(predicted).mean(dim=0)

    def _image(self, case: str) -> Any:
        return self.student.dataset.load_case(case)[0]

    def _whole_image(self, case: str) -> NDArray[np.float32]:
        """A preprocessed image, in a cascade with the labels of the previous stage."""
        image, _, previous, _ = self.student.dataset.load_case(case)
        if previous is None:
            return np.array(image[:], np.float32)
        labels = convert_labelmap_to_one_hot(previous[:], self.student.labels.foreground_labels, np.float32)
        return np.vstack([image[:], labels]).astype(np.float32, copy=False)

    def _tiles(self, shape: Sequence[int]) -> int:
        patch = self.predictors[0].configuration_manager.patch_size
        extents = [*shape[1 : -len(patch)], *map(max, shape[-len(patch) :], patch)]
        return len(self.predictors[0]._internal_get_sliding_window_slicers(extents))

    def _seconds_of_tile(self) -> float:
        channels, *patch = self.student.checkpoints[0].model.input_shape
        slices = [_TIMED_SLICES] if len(patch) == 2 else []
        image = torch.zeros(channels, *slices, *patch)
        predictor = self.predictors[0]
        [seconds] = seconds_of_each(lambda: predictor.predict_logits_from_preprocessed_data(image), 1, self.device)
        return float(seconds) / prod(slices)
