"""The base of all distillation trainers. Loss weights are applied here and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from nnunetv2.utilities.collate_outputs import collate_outputs
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from torch import Tensor, autocast
from torch.profiler import record_function

from nnunetv2_hlfd.distillation.combined import CombinedMethod, combine, other_defaults
from nnunetv2_hlfd.distillation.log import DistillationLog
from nnunetv2_hlfd.distillation.method import DistillationMethod, Outputs, Task, TeacherShape
from nnunetv2_hlfd.distillation.tap_table import tap_table
from nnunetv2_hlfd.distillation.taps import EncoderCapture, Stage, TeacherTaps, read_stages
from nnunetv2_hlfd.networks.size import Size, measure_network
from nnunetv2_hlfd.teacher.search import StudentSide
from nnunetv2_hlfd.teacher.teacher import Teacher, check_same_teacher, load_teacher
from nnunetv2_hlfd.training.student_trainer import nnUNetTrainerStudent
from nnunetv2_hlfd.utilities.errors import UserError

STEP_PARTS = ("teacher", "student and its loss", "terms", "backward and optimizer")  # as profiles name them
_CLIP_NORM = 12  # nnU-Net's


class DistillationTrainer(nnUNetTrainerStudent):
    """A student that learns from a frozen teacher.

    The teacher and the method's adapters live outside self.network: the student's weights stay those of a plain
    nnU-Net network.

    Attributes:
        method_class: the terms and adapters of the method.
    """

    method_class: ClassVar[type[DistillationMethod]]
    teacher: Teacher | None = None
    teacher_shape: TeacherShape | None = None
    teacher_origin: Sequence[Mapping[str, Any]] = ()

    def initialize(self) -> None:
        """Build as nnU-Net does; the hook has to be there before the first compiled forward pass."""
        super().initialize()
        self.capture = EncoderCapture(self._inner_network())
        self.log = DistillationLog(self.method.weights)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """The student's optimizer with the adapters as a second parameter group.

        Adapters are built under a forked random state: the student's batches are the same with and without them. Their
        shapes need the teacher's; a continued or validated run has them from its checkpoint.
        """
        optimizer, scheduler = super().configure_optimizers()
        if self.teacher_shape is None:
            self.teacher = self.load_teacher()
            self.teacher_shape = self.teacher.shape
        assert self.seed is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + 1)
            self.method = self._build_method(self.teacher_shape).to(self.device)
        adapters = list(self.method.parameters())
        if adapters:
            optimizer.add_param_group({"params": adapters})
        return optimizer, scheduler

    def _build_method(self, teacher: TeacherShape) -> CombinedMethod:
        """This trainer's method and those that the setting `weights` adds."""
        task = Task(
            num_heads=self.label_manager.num_segmentation_heads,
            regions=self.label_manager.has_regions,
            dimension=len(self.configuration_manager.patch_size),
            ignore_label=self.label_manager.ignore_label,
        )
        stages = read_stages(self._inner_network())
        return combine(type(self), lambda each: each(stages, teacher, task, self.settings), self.settings)

    def load_teacher(self) -> Teacher:
        """Find, check and load the teacher for this student."""
        side = StudentSide(
            plans=self.plans_manager,
            plans_names=self.plans_lineage,
            configuration=self.configuration_name,
            dataset_json=self.dataset_json,
            fold=self.fold,
            validation_cases=self.do_split()[1],
            results_folder=Path(self.output_folder_base).parent,
        )
        return load_teacher(side, self.settings).to(self.device)

    def tap_table(self) -> str:
        """Roles, channels, strides and sizes of the stages of student and teacher, as text."""
        assert self.teacher_shape is not None
        return tap_table(
            read_stages(self._inner_network()),
            self.teacher_shape.stages,
            self.method.roles(),
            self.configuration_manager.patch_size,
        )

    def _prepare_training(self) -> None:
        """Load the teacher, only where epochs remain; say what is taught and how large both are."""
        super()._prepare_training()
        if self.current_epoch >= self.num_epochs:
            return
        if self.teacher is None:
            self.teacher = self._load_again() if self.teacher_origin else self.load_teacher()
        origin = [dict(each.origin) for each in self.teacher.networks]
        check_same_teacher(origin, self.teacher_origin)
        self.teacher_origin = origin
        self.print_to_log_file(self.describe(), add_timestamp=False)

    def _load_again(self) -> Teacher:
        """Load the teacher of a continued run."""
        try:
            return self.load_teacher()
        except ValueError as error:
            first = self.teacher_origin[0]
            raise UserError(f"{error}\nThis run was started with {first['folder']}/{first['checkpoint']}.") from error

    def describe(self) -> str:
        """Teacher, tap table and sizes, for the log and --dry_run; warns where the student is not smaller."""
        assert self.teacher is not None
        origins = [f"{each.origin['folder']}/{each.origin['checkpoint']}" for each in self.teacher.networks]
        student, teacher = self.student_size(), self.teacher_size()
        lines = [f"Teacher: {', '.join(origins)}", self.tap_table(), f"Student: {student}", f"Teacher: {teacher}"]
        if student.parameters >= teacher.parameters or student.macs >= teacher.macs:
            lines.append("WARNING: the student is not smaller than its teacher. The setting student makes it smaller.")
        if any(each.origin["may_have_seen_validation_cases"] for each in self.teacher.networks):
            lines.append("WARNING: the teacher may have seen this fold's validation cases: its results mean little.")
        return "\n".join([*lines, *other_defaults(type(self), self.settings)])

    def teacher_size(self) -> Size:
        """Parameters and operations of one teacher network."""
        assert self.teacher is not None
        channels = determine_num_input_channels(self.plans_manager, self.configuration_manager, self.dataset_json)
        return measure_network(self.teacher.networks[0].network, self.configuration_manager.patch_size, channels)

    def train_step(self, batch: dict) -> dict:
        """One step on L_seg plus the weighted terms (Eq. 5); every term is computed and logged, also at weight 0."""
        assert self.teacher is not None
        data = batch["data"].to(self.device, non_blocking=True)
        target = [each.to(self.device, non_blocking=True) for each in batch["target"]]
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device.type, enabled=self.device.type == "cuda"):
            with record_function(STEP_PARTS[0]):
                taught = self.teacher(data)
            with record_function(STEP_PARTS[1]):
                self.capture.enabled = True
                logits = self.network(data)
                self.capture.enabled = False
                segmentation = self.loss(logits, target)
        student = Outputs(features=self.capture.take(), logits=logits)
        with autocast(self.device.type, enabled=False), record_function(STEP_PARTS[2]):
            terms = self.method(student, taught, target[0])
        factors = self._factors()
        total = segmentation
        for name, factor in factors.items():
            if factor != 0:
                total = total + factor * terms[name]
        with record_function(STEP_PARTS[3]):
            self._optimize(total)
        values = torch.stack([each.detach().float() for each in (total, segmentation, *terms.values())]).cpu().numpy()
        self._check_finite(dict(zip(("loss", "segmentation", *terms), values, strict=True)))
        return {"loss": values[0], "terms": values[1:]}

    def _factors(self) -> dict[str, float]:
        """Weight of each term in this epoch; rises linearly over the warm-up."""
        ramp = min(1.0, (self.current_epoch + 1) / (self.settings.warmup_epochs + 1))
        return {name: weight * ramp for name, weight in self.method.weights.items()}

    def _optimize(self, total: Tensor) -> None:
        """Backward and step as nnU-Net does; adapters are synchronized and clipped apart from the student."""
        scaler = self.grad_scaler
        (total if scaler is None else scaler.scale(total)).backward()
        adapters = [each for each in self.method.parameters() if each.grad is not None]
        if self.is_ddp:
            for gradient in (each.grad for each in adapters if each.grad is not None):
                dist.all_reduce(gradient)
                gradient /= dist.get_world_size()
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP_NORM)
        torch.nn.utils.clip_grad_norm_(adapters, _CLIP_NORM)
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """Log nnU-Net's loss and every named term."""
        super().on_train_epoch_end(train_outputs)
        means = np.mean(collate_outputs(train_outputs)["terms"], axis=0)
        if self.is_ddp:
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, means)
            means = np.mean(gathered, axis=0)
        row = self.log.add(self.current_epoch, means, self._factors())
        for name, value in row.items():
            for logger in self.logger.loggers:
                logger.log(f"hlfd/{name}", value, self.current_epoch)

    def on_epoch_end(self) -> None:
        """As nnU-Net, and rewrite distillation_log.csv and its plot beside progress.png."""
        super().on_epoch_end()
        if self.local_rank == 0:
            self.log.write(Path(self.output_folder))

    def _record(self) -> dict[str, Any]:
        record = super()._record()
        if self.teacher is not None:
            record["teacher"] = {
                **vars(self.teacher_size()),
                "networks": self.teacher_origin,
            }
            record["method"] = {"title": self.method.title, "weights": self.method.weights}
            record["tap_table"] = self.tap_table().splitlines()
        return record

    def _checkpoint_extras(self) -> dict[str, Any]:
        return {
            **super()._checkpoint_extras(),
            "adapters": self.method.state_dict(),
            "log": self.log.rows,
            "teacher": self.teacher_origin,
            "teacher_shape": asdict(self.method.teacher),
        }

    def _adopt(self, content: Mapping[str, Any], extras: Mapping[str, Any], source: object) -> None:
        """Adapters are built from the shape of the teacher that the run was started with."""
        super()._adopt(content, extras, source)
        shape = extras["teacher_shape"]
        self.teacher_shape = TeacherShape(
            stages=tuple(Stage(**each) for each in shape["stages"]),
            taps=TeacherTaps(**shape["taps"]),
            networks=shape["networks"],
        )

    def _restore_extras(self, extras: Mapping[str, Any]) -> None:
        self.method.load_state_dict(extras["adapters"])
        self.log.rows = list(extras["log"])
        self.teacher_origin = extras["teacher"]
