"""How long a compression takes and what it needs on the disk, told before the work begins."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunetv2_hlfd.compress.held_out import divide
from nnunetv2_hlfd.compress.inventory import Inventory
from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.compress.plans import resolve_student, student_configuration
from nnunetv2_hlfd.compress.teacher import STEP_SIZE, load_predictor
from nnunetv2_hlfd.deploy.source import Source
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.networks.size import build_network
from nnunetv2_hlfd.networks.students import STUDENTS
from nnunetv2_hlfd.training.cost import checkpoint_bytes, forward_pass, in_words, memory_in_words, training_step
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.timing import seconds_of_each

_TIMED_SLICES = 8  # of a 2d teacher
_STORED_MAPS = 1.3  # a training step with maps, beside one of the network alone
_FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Duration:
    """What was estimated.

    Attributes:
        images: Number of images.
        student: Its name.
        teacher: Seconds of the teacher's pass.
        steps: Of the training.
        training: Seconds of the training.
        prediction: Seconds of the held-out images' predictions by the student.
        memory: Of this process so far, in words.
        disk_bytes: At most, of maps and preprocessed images, which are stored compressed, and of checkpoints.
    """

    images: int
    student: str
    teacher: float
    steps: int
    training: float
    prediction: float
    memory: str
    disk_bytes: int

    def __str__(self) -> str:
        """Say it in a line."""
        return (
            f"Teacher, {self.images} images: about {in_words(self.teacher)}. Training {self.student}, {self.steps} "
            f"steps: about {in_words(self.training)}, reading and augmentation apart. Prediction of held-out images: "
            f"about {in_words(self.prediction)}. {self.memory}. Disk: at most {self.disk_bytes / 1e9:.2g} GB."
        )


def estimate(source: Source, options: CompressOptions, inventory: Inventory) -> Duration:
    """Measure a patch of the teacher and a few training steps of the student, and count.

    Raises:
        UserError: for networks that cannot be built.
    """
    model = source.model
    predictor = load_predictor(source, options)
    configuration = student_configuration(model, options)
    teachers, students = (
        {case: grid(model, spacing, inventory.shapes[case], inventory.spacings[case]) for case in inventory.images}
        for spacing in (model.configuration_manager.spacing, configuration.spacing)
    )
    patch, own_patch = model.configuration_manager.patch_size, configuration.patch_size
    image = torch.zeros(model.input_shape[0], *_timed_shape(patch))
    [seconds] = seconds_of_each(
        lambda: predictor.predict_logits_from_preprocessed_data(image), 1, choose_device(options.device)
    )
    per_tile = float(seconds) / number_of_tiles(patch, _timed_shape(patch))
    student = resolve_student(source, options)
    network = _build(model, configuration, student)
    step, tile = _seconds_of_student(network, model, configuration, options)
    held_out = divide(inventory.images.keys(), options.held_out, labelled=inventory.labels.keys(), own=inventory.own)
    copies = 2 ** len(model.mirror_axes or ())
    channels = model.input_shape[0] * _FLOAT_BYTES + len(_heads(model))
    return Duration(
        images=len(students),
        student=student,
        teacher=sum(number_of_tiles(patch, shape) for shape in teachers.values()) * per_tile,
        steps=options.steps,
        training=options.steps * step * _STORED_MAPS * (2 if options.control else 1),
        prediction=sum(number_of_tiles(own_patch, students[case]) for case in held_out.held_out) * tile * copies,
        memory=memory_in_words(choose_device(options.device)),
        disk_bytes=sum(prod(shape) for shape in students.values()) * channels + checkpoint_bytes(network),
    )


def grid(model: ModelFolder, target: Sequence[float], shape: Sequence[int], spacing: Sequence[float]) -> list[int]:
    """Shape of a preprocessed image, on the axes of the network, if nothing is cropped.

    Args:
        model: Tells the order of the axes.
        target: Spacing of the network.
        shape: Of nnU-Net's array of the image.
        spacing: Of it.
    """
    axes = model.plans.transpose_forward
    target = [float(extent) for extent in target]
    shape, spacing = [shape[axis] for axis in axes], [spacing[axis] for axis in axes]
    whole = [spacing[0], *target] if len(target) < len(shape) else target
    return [round(extent * own / wanted) for extent, own, wanted in zip(shape, spacing, whole, strict=True)]


def number_of_tiles(patch_size: Sequence[int], shape: Sequence[int]) -> int:
    """How many patches nnU-Net's sliding window takes of a preprocessed image."""
    patch = [int(extent) for extent in patch_size]
    slices, inside = prod(shape[: -len(patch)]), shape[-len(patch) :]
    padded = tuple(max(extent, least) for extent, least in zip(inside, patch, strict=True))
    return slices * prod(map(len, compute_steps_for_sliding_window(padded, tuple(patch), STEP_SIZE)))


def _timed_shape(patch_size: Sequence[int]) -> list[int]:
    return list(patch_size) if len(patch_size) == 3 else [_TIMED_SLICES, *patch_size]


def _heads(model: ModelFolder) -> range:
    return range(model.plans.get_label_manager(model.dataset_json).num_segmentation_heads)


def _build(model: ModelFolder, configuration: ConfigurationManager, student: str) -> nn.Module:
    block = STUDENTS[student](configuration.configuration["architecture"])
    return build_network(block, model.input_shape[0], len(_heads(model)))


def _seconds_of_student(
    network: nn.Module, model: ModelFolder, configuration: ConfigurationManager, options: CompressOptions
) -> tuple[float, float]:
    """Seconds of a training step, and of the prediction of one patch."""
    device = choose_device(options.device)
    network = network.to(device)
    batch = options.settings.get("batch_size") or configuration.batch_size
    data = torch.randn(batch, model.input_shape[0], *configuration.patch_size, device=device)
    steps = float(seconds_of_each(training_step(network, data), 2, device).mean())
    return steps, float(seconds_of_each(forward_pass(network, data), 1, device).mean()) / batch
