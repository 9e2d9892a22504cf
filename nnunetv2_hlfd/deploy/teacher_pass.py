"""The pass of a teacher over a student's training cases, after which its maps are stored."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager, convert_labelmap_to_one_hot
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from nnunetv2_hlfd.deploy.maps_predictor import MapsPredictor
from nnunetv2_hlfd.distillation.method import TeacherShape
from nnunetv2_hlfd.distillation.requests import MapRequest
from nnunetv2_hlfd.networks.size import measure_network
from nnunetv2_hlfd.teacher.checkpoint import TeacherCheckpoint
from nnunetv2_hlfd.teacher.stored.coarse import encode_coarse
from nnunetv2_hlfd.teacher.stored.description import Description
from nnunetv2_hlfd.teacher.stored.encoding import encode
from nnunetv2_hlfd.teacher.stored.folder import MapsFolder
from nnunetv2_hlfd.utilities.errors import UserError
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
        requests: what is asked of the teacher beside its final map.
        shape: of the teacher, if there are requests.
    """

    dataset: Any
    labels: LabelManager
    patch_size: Sequence[int]
    teacher_maps: str
    checkpoints: Sequence[TeacherCheckpoint]
    requests: Sequence[MapRequest] = ()
    shape: TeacherShape = field(default_factory=TeacherShape)

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
            MapsPredictor(
                checkpoint,
                student.requests,
                student.labels.has_regions,
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
                requests=[asdict(request) for request in student.requests],
                stages=[asdict(stage) for stage in student.shape.stages],
                heads=list(student.shape.taps.heads) if student.shape.taps else [],
            ),
        )
        cases = student.dataset.identifiers
        self.missing = [case for case in cases if self.maps.state(case, student.dataset) != "whole"]

    def estimate(self) -> str:
        """How much is to be done, from one patch that is predicted."""
        shapes = {case: self._image(case).shape for case in self.missing}
        description = self.maps.description
        strides = [(1, 1, 1), *description.strides]
        per_voxel = sum(
            channels / prod(stride) for channels, stride in zip(description.all_channels, strides, strict=True)
        )
        largest = per_voxel * sum(prod(shape[1:]) for shape in shapes.values())
        tiles = sum(self._tiles(shape) * len(self.student.networks(case)) for case, shape in shapes.items())
        return (
            f"{len(self.missing)} cases, about {tiles * self._seconds_of_tile() / 60:.2g} minutes, at most "
            f"{largest / 1e9:.2g} GB in {self.maps.path}"
        )

    def run(self) -> None:
        """Make the maps that are missing; stopped at any moment, it goes on from there.

        Raises:
            UserError: for a case whose image, or the teacher's output on it, is not finite.
        """
        for case in tqdm(self.missing, desc="Teaching", unit="case", disable=None):
            networks = self.student.networks(case)
            try:
                final, *coarse = self._codes(case, networks)
            except UserError as error:
                raise UserError(f"The teacher cannot predict {case}: {error}.") from error
            self.maps.add(
                case,
                final,
                self.student.dataset,
                patch_size=self.student.patch_size,
                networks=networks,
                coarse=coarse,
            )

    def _codes(self, case: str, networks: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Codes of the final map, from logits as prediction has them, and of every other map."""
        image = torch.from_numpy(self._whole_image(case))
        predicted = [self.predictors[number].predict_logits_from_preprocessed_data(image) for number in networks]
        final, *others = zip(*(network.split(self.maps.description.all_channels) for network in predicted), strict=True)
        regions, description = self.student.labels.has_regions, self.maps.description
        codes = [encode(_mean(final), regions)]
        for request, stride, maps in zip(description.coarse, description.strides, others, strict=True):
            same_size = [_unit_mean(one) for one in maps] if request.kind == "attention" else maps
            codes.append(encode_coarse(request, _mean(same_size), stride, regions))
        return [values.numpy() for values in codes]

    def _image(self, case: str) -> Any:
        return self.student.dataset.load_case(case)[0]

    def _whole_image(self, case: str) -> NDArray[np.float32]:
        """A preprocessed image, in a cascade with the labels of the previous stage."""
        stored, _, previous, _ = self.student.dataset.load_case(case)
        image = np.array(stored[:], np.float32)
        if not np.isfinite(image).all():
            raise UserError("its preprocessed image has NaN or infinite values")
        if previous is None:
            return image
        labels = convert_labelmap_to_one_hot(previous[:], self.student.labels.foreground_labels, np.float32)
        return np.vstack([image, labels]).astype(np.float32, copy=False)

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


def _mean(maps: Sequence[Tensor]) -> Tensor:
    return maps[0] if len(maps) == 1 else torch.stack(list(maps)).mean(dim=0)


def _unit_mean(energy: Tensor) -> Tensor:
    """Several networks have the same weight, whatever the size of their activations."""
    return energy / energy.mean().clamp_min(torch.finfo(energy.dtype).tiny)
