"""What a distillation method is: named, unweighted loss terms of student and teacher outputs, and its adapters.

A method needs no trainer. HLFD's loss on two networks outside nnU-Net:

>>> import torch
>>> from dynamic_network_architectures.architectures.unet import PlainConvUNet
>>> from nnunetv2_hlfd import HLFD, Outputs, Settings, Task, TeacherOutputs, TeacherShape, read_stages
>>> shape = {"n_stages": 5, "conv_op": torch.nn.Conv2d, "kernel_sizes": 3, "strides": [1, 2, 2, 2, 2]}
>>> shape |= {"n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1, "deep_supervision": True}
>>> teacher = PlainConvUNet(1, num_classes=2, features_per_stage=[16, 32, 64, 128, 128], **shape)
>>> student = PlainConvUNet(1, num_classes=2, features_per_stage=[4, 8, 16, 32, 32], **shape)
>>> task = Task(num_heads=2, regions=False, dimension=2)
>>> method = HLFD(read_stages(student), TeacherShape.of(teacher), task, Settings())
>>> images, labels = torch.rand(2, 1, 64, 64), torch.randint(0, 2, (2, 1, 64, 64))
>>> with torch.no_grad():
...     taught = TeacherOutputs(networks=[Outputs.of(teacher, images)])
>>> terms = method(Outputs.of(student, images), taught, labels)
>>> list(terms)
['ufd', 'ifd', 'upd', 'ipd']
>>> sum(method.weights[name] * term for name, term in terms.items()).backward()
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from nnunetv2_hlfd.distillation.outputs import Outputs, Source, TeacherOutputs
from nnunetv2_hlfd.distillation.requests import MapRequest
from nnunetv2_hlfd.distillation.taps import Stage, TeacherTaps, nearest_stage, read_stages, teacher_taps, trained_heads
from nnunetv2_hlfd.losses.attention import attention_distance
from nnunetv2_hlfd.losses.divergence import class_weights, kl_divergence, valid_cells
from nnunetv2_hlfd.losses.focal_dice import ignored_voxels
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.utilities.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the networks' outputs mean, and how the segmentation loss takes them.

    Attributes:
        num_heads: channels of the logits.
        regions: overlapping regions instead of labels.
        dimension: 2 or 3.
        ignore_label: of the data set, if any.
        batch_dice: Dice pools the samples of a batch.
        output_weights: nnU-Net's deep-supervision weights, highest resolution first.
        ddp: several processes train together.
    """

    num_heads: int
    regions: bool
    dimension: int
    ignore_label: int | None = None
    batch_dice: bool = False
    output_weights: tuple[float, ...] = (1.0,)
    ddp: bool = False


@dataclass(frozen=True, kw_only=True)
class TeacherShape:
    """What adapters are built from: the teacher's stages, their roles, and how many networks teach together.

    A teacher that only its logits are asked of (see `DistillationMethod.needs`) has neither stages nor taps.
    """

    stages: tuple[Stage, ...] = ()
    taps: TeacherTaps | None = None
    networks: int = 1

    @classmethod
    def of(cls, network: nn.Module, late_max_stride: int | None = 16) -> "TeacherShape":
        """Read stages and roles from a U-Net with an encoder and a decoder with deep supervision.

        Raises:
            UserError: for a network without readable stages, or without a stage for every role.
        """
        stages = read_stages(network)
        return cls(stages=stages, taps=teacher_taps(stages, trained_heads(network), late_max_stride))


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Which stages a method uses and as what, for the tap table, and what else is to be said."""

    student: Mapping[int, str]
    teacher: Mapping[int, str]
    notes: Sequence[str] = ()


# What a method can need of a teacher. Every network has the first two; the others need a U-Net's encoder and decoder.
FINAL = "final"  # probabilities of the final map
LOGITS = "logits"  # raw logits of the final map, which several networks cannot average
HEADS = "heads"  # probabilities of the intermediate deep-supervision outputs
ATTENTION = "attention"  # attention maps of encoder stages, one channel each
FEATURES = "features"  # raw features of encoder stages
OF_ANY_NETWORK = frozenset({FINAL, LOGITS})
ALL_NEEDS = frozenset({FINAL, LOGITS, HEADS, ATTENTION, FEATURES})


@dataclass(frozen=True, kw_only=True)
class PixelMap:
    """Logits (B, C, *grid) that a method's learned head makes of a student stage, and the term that trains it."""

    stage: int
    term: str
    logits: Tensor


class DistillationMethod(nn.Module):
    """Base of the methods. A subclass computes its terms and owns its adapters (student-side trainable parts).

    Adapters are registered as submodules: the trainer optimizes, synchronizes, clips and saves them. They are dropped
    when the student is deployed.

    Attributes:
        title: for reports, with the name that the HLFD paper uses.
        summary: what is taught, in one line, for the list of trainers.
        needs: what the method asks of a teacher. One that needs no more than `OF_ANY_NETWORK` is taught by any network.
        segmentation_terms: terms that take their weight w from the segmentation loss: L = (1 - w) L_seg + w term.
        source_loss: the segmentation loss beside which the method's source gives its weights, "cross_entropy" or
            "focal_dice"; None for weights that are meant as they are. See `training.source_ratio`.
        defaults: settings (public names) in which the method differs from `Settings`' defaults.
        weights: term name -> its factor in the total loss. The trainer applies them, nothing else does. Names are
            unique over all methods, because methods can be combined.
    """

    title: ClassVar[str]
    summary: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = ALL_NEEDS
    segmentation_terms: ClassVar[frozenset[str]] = frozenset()
    source_loss: ClassVar[str | None] = None
    defaults: ClassVar[Mapping[str, Any]] = {}
    weights: Mapping[str, float]

    def __init__(
        self, student_stages: Sequence[Stage], teacher_shape: TeacherShape, task: Task, settings: Settings
    ) -> None:
        super().__init__()
        self.student_stages, self.teacher_shape = tuple(student_stages), teacher_shape
        self.task, self.settings = task, settings

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return every term of `weights` as an unweighted scalar.

        Args:
            student: with graph.
            teacher: without graph.
            target: nnU-Net's full-resolution target.
        """
        raise NotImplementedError  # each method has its own

    def roles(self) -> Roles:
        """Roles of the stages, for the tap table."""
        raise NotImplementedError  # each method has its own

    def requests(self) -> Sequence[MapRequest]:
        """What is asked of the teacher beside its final map, so that it can be stored.

        Raises:
            UserError: for a method that needs more than the final map and does not say what.
        """
        if self.needs <= {FINAL}:
            return ()
        raise UserError(
            f"{type(self).__name__} does not say which maps of the teacher are to be stored for it (its `requests`). "
            f"Set teacher_maps to live."
        )

    def pixel_maps(self, features: Sequence[Tensor]) -> Sequence[PixelMap]:
        """What learned heads make of the student's encoder maps, for pictures. A method without such heads has none."""
        return ()

    @property
    def teacher_taps(self) -> TeacherTaps:
        """Roles of the teacher's stages; there are none for a method that needs no stages."""
        assert self.teacher_shape.taps is not None, f"{type(self).__name__}.needs asks for no stage of the teacher"
        return self.teacher_shape.taps

    def head(self, stage: int) -> nn.Module:
        """A learned 1x1 head from a student stage to segmentation logits."""
        return self.projection(self.student_stages[stage].channels, self.task.num_heads)

    def projection(self, in_channels: int, out_channels: int) -> nn.Module:
        """A learned 1x1 convolution of this task's dimension."""
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[self.task.dimension]
        return convolution(in_channels, out_channels, kernel_size=1)

    def student_partner(self, teacher_stage: int) -> int:
        """The student's stage whose total stride is nearest to that of a teacher's stage."""
        return nearest_stage(self.student_stages, self.teacher_shape.stages[teacher_stage].stride)

    def teacher_partner(self, student_stage: int) -> int:
        """The teacher's stage whose total stride is nearest to that of a student's stage."""
        return nearest_stage(self.teacher_shape.stages, self.student_stages[student_stage].stride)

    def attention_distance(
        self,
        student: Outputs,
        teacher: TeacherOutputs,
        student_stage: int,
        teacher_stage: int,
        source: Source = "encoder",
    ) -> Tensor:
        """|| A(z^s) - A(z^t) ||^2 of two stages, the student's resized to the teacher's grid, mean over the batch.

        `source` says whose stage the teacher's is.
        """
        exponent = self.settings.attention_exponent
        student_map = student.attention(student_stage, teacher.size(teacher_stage), exponent)
        return attention_distance(student_map, teacher.attention(teacher_stage, exponent, source))

    def divergence(
        self, student_logits: Tensor, teacher_probabilities: Tensor, target: Tensor, temperature: float
    ) -> Tensor:
        """T^2 KL(teacher || student) on the grid of the logits, voxels weighted as the setting voxel_weights says.

        Voxels to ignore count unless distill_ignored is false.
        """
        regions, valid = self.task.regions, self.valid(target, tuple(student_logits.shape[2:]))
        by_class = self.settings.voxel_weights == "class"
        return kl_divergence(
            student_logits,
            teacher_probabilities,
            temperature=temperature,
            regions=regions,
            valid=valid,
            weights=class_weights(teacher_probabilities, regions, valid) if by_class else None,
        )

    def final_divergence(self, student: Outputs, teacher: TeacherOutputs, target: Tensor, temperature: float) -> Tensor:
        """T^2 KL of the final maps, computed once a step for all methods that use it."""
        return student.once(
            ("final divergence", temperature),
            lambda: self.divergence(
                student.logits[0], teacher.probabilities(0, temperature, self.task.regions), target, temperature
            ),
        )

    def valid(self, target: Tensor, size: tuple[int, ...]) -> Tensor | None:
        """Cells (B, 1, *size) that pixel-level terms teach; None for all."""
        if self.settings.distill_ignored:
            return None
        ignored = ignored_voxels(target, self.task.ignore_label, self.task.regions)
        return None if ignored is None else valid_cells(ignored, size)
