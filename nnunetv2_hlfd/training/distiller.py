"""What distillation adds to a training: the teacher, the method with its adapters, the student's maps, the log."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from nnunetv2_hlfd.distillation.combined import CombinedMethod
from nnunetv2_hlfd.distillation.log import DistillationLog
from nnunetv2_hlfd.distillation.method import TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.distillation.restore import restore_teacher_shape
from nnunetv2_hlfd.distillation.tap_table import tap_table
from nnunetv2_hlfd.distillation.taps import EncoderCapture, read_stages
from nnunetv2_hlfd.networks.size import Size
from nnunetv2_hlfd.teacher.checkpoint import LEAK_WARNING, check_same_teacher
from nnunetv2_hlfd.teacher.stored.teacher import StoredTeacher
from nnunetv2_hlfd.teacher.teacher import Teacher
from nnunetv2_hlfd.training.source_ratio import SourceRatio

STEP_PARTS = ("teacher", "student and its loss", "terms", "backward and optimizer")  # as profiles name them


class Distiller:
    """Everything beside the student. Nothing of it is part of the student's network.

    It is made before the student (its adapters need the teacher's shape) and attached to it before the first compiled
    forward pass (a hook that is added later never fires).

    Args:
        teacher_shape: of the teacher that the training is started with.
        teacher: None where it is loaded later, or not at all (validation).

    Attributes:
        method: the terms and adapters.
        log: a row an epoch.
        origin: where the teacher's networks came from when the training was started; empty before that.
    """

    method: CombinedMethod
    log: DistillationLog

    def __init__(self, teacher_shape: TeacherShape, teacher: Teacher | StoredTeacher | None = None) -> None:
        self.teacher_shape, self.teacher = teacher_shape, teacher
        self.origin: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Distiller":
        """The distiller of a run that is continued or validated, from what `state_dict` wrote; see `load_state_dict`.

        Adapters are built for the shape of the teacher that the run was started with.
        """
        return cls(restore_teacher_shape(state["teacher_shape"]))

    def attach(self, network: nn.Module, method: CombinedMethod, source_ratio: SourceRatio | None) -> None:
        """Take the method, and capture the encoder maps of the student (below DDP and torch.compile).

        Args:
            network: of the student.
            method: to learn by.
            source_ratio: what multiplies the weights of some of its terms.
        """
        self.method, self.source_ratio = method, source_ratio
        self.log = DistillationLog(method.weights, source_ratio.terms if source_ratio else ())
        self.student_stages = read_stages(network)
        self._capture = EncoderCapture(network)

    def use(self, teacher: Teacher | StoredTeacher) -> None:
        """Teach by these networks, or by what is stored of them.

        Raises:
            UserError: where the run was started with others.
        """
        check_same_teacher(teacher.origins, self.origin)
        self.teacher, self.origin = teacher, teacher.origins

    @property
    def stored(self) -> StoredTeacher | None:
        """The teacher where its maps are stored: training batches then carry them as last channels of the image."""
        return self.teacher if isinstance(self.teacher, StoredTeacher) else None

    def split(self, data: Tensor) -> tuple[Tensor, Tensor]:
        """Split what a training batch holds.

        Returns:
            The image (B, C, *spatial), which the student sees, and what the teacher is asked by: the same image, or
            its stored maps (B, K, *spatial).
        """
        if self.stored is None:
            return data, data
        return data[:, : -self.stored.channels].contiguous(), data[:, -self.stored.channels :]

    def ask_teacher(self, shown: Tensor) -> TeacherOutputs:
        """The teacher's outputs on a batch, without graph; see `split`."""
        assert self.teacher is not None
        with record_function(STEP_PARTS[0]):
            return self.teacher(shown)

    def run_student(self, network: nn.Module, data: Tensor) -> Outputs:
        """Encoder maps and logits of the student on a batch, by the network as nnU-Net wraps it."""
        self._capture.enabled = True
        logits = network(data)
        self._capture.enabled = False
        return Outputs(features=self._capture.take(), logits=logits)

    def terms(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """All terms, unweighted, in full precision."""
        with torch.autocast(target.device.type, enabled=False), record_function(STEP_PARTS[2]):
            return self.method(student, teacher, target)

    def ratios(self, student: Outputs, target: Tensor) -> dict[str, Tensor]:
        """Name of a term -> what its weight is multiplied by in this step, for terms that have a `SourceRatio`."""
        return self.source_ratio(student.logits[0], target) if self.source_ratio else {}

    def factors(self, ramp: float) -> dict[str, float]:
        """Weight of each term at a share of the full distillation."""
        return {name: weight * ramp for name, weight in self.method.weights.items()}

    def mirroring_axes(self, planned: tuple[int, ...]) -> tuple[int, ...] | None:
        """The axes of these that all of the teacher's networks allow; None for none, as nnU-Net writes it.

        A checkpoint before 0.2 does not tell its teacher's axes: the run was started with the planned ones.
        """
        networks = self.origin if self.teacher is None else self.teacher.origins
        allowed = [origin.get("mirroring_axes", planned) or () for origin in networks]
        return tuple(axis for axis in planned if all(axis in axes for axes in allowed)) or None

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {
            "adapters": self.method.state_dict(),
            "log": self.log.rows,
            "balance_log": self.log.balance_rows,
            "teacher": self.origin,
            "teacher_shape": asdict(self.teacher_shape),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` wrote."""
        self.method.load_state_dict(state["adapters"])
        self.log.rows = list(state["log"])
        self.log.balance_rows = list(state.get("balance_log", []))
        self.origin = state["teacher"]

    def tap_table(self, patch_size: Sequence[int]) -> str:
        """Roles, channels, strides and sizes of the stages of student and teacher, as text."""
        return tap_table(self.student_stages, self.teacher_shape.stages, self.method.roles(), patch_size)

    def teacher_size(self, patch_size: Sequence[int], num_input_channels: int) -> Size:
        """Parameters and operations of one teacher network."""
        assert self.teacher is not None
        return self.teacher.size(patch_size, num_input_channels)

    def describe(self, student: Size, patch_size: Sequence[int], num_input_channels: int) -> list[str]:
        """Teacher, tap table and sizes as lines for the log and --dry_run; warns where the student is not smaller."""
        places = [f"{origin['folder']}/{origin['checkpoint']}" for origin in self.origin]
        teacher = self.teacher_size(patch_size, num_input_channels)
        lines = [
            f"Teacher: {', '.join(places)}",
            self.tap_table(patch_size),
            f"Student: {student}",
            f"Teacher: {teacher}",
        ]
        if student.parameters >= teacher.parameters or student.macs >= teacher.macs:
            lines.append("WARNING: the student is not smaller than its teacher. The setting student makes it smaller.")
        if any(origin["may_have_seen_validation_cases"] for origin in self.origin):
            lines.append(LEAK_WARNING)
        return lines

    def record(self, patch_size: Sequence[int], num_input_channels: int) -> dict[str, Any]:
        """For distillation.json."""
        size = self.teacher_size(patch_size, num_input_channels)
        return {
            "teacher": {**vars(size), "networks": self.origin},
            "method": {"title": self.method.title, "weights": self.method.weights},
            "tap_table": self.tap_table(patch_size).splitlines(),
        }

    def __repr__(self) -> str:  # nnU-Net writes every attribute of a trainer into debug.json
        return f"Distiller({self.teacher_shape.networks} teacher networks)"
