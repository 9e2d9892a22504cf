"""The base of all distillation trainers. Loss weights are applied here and nowhere else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from nnunetv2.utilities.collate_outputs import collate_outputs
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from torch import Tensor, autocast
from torch.profiler import record_function

from nnunetv2_hlfd.distillation.combined import CombinedMethod, MethodClasses, combine, method_classes, own_defaults
from nnunetv2_hlfd.distillation.method import DistillationMethod, Task
from nnunetv2_hlfd.distillation.registry import PREFIX
from nnunetv2_hlfd.distillation.taps import read_stages
from nnunetv2_hlfd.teacher.search import StudentSide
from nnunetv2_hlfd.teacher.teacher import Teacher, load_teacher
from nnunetv2_hlfd.training.distiller import STEP_PARTS, Distiller
from nnunetv2_hlfd.training.student_trainer import nnUNetTrainerStudent
from nnunetv2_hlfd.utilities.errors import UserError

_CLIP_NORM = 12  # nnU-Net's


class DistillationTrainer(nnUNetTrainerStudent):
    """A student that learns from a frozen teacher.

    The teacher and the method's adapters live outside self.network: the student's weights stay those of a plain
    nnU-Net network.

    Attributes:
        method_class: the terms and adapters of the method. Its `defaults` are the trainer's.
    """

    method_class: ClassVar[type[DistillationMethod]]
    _distiller: Distiller | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "method_class" in vars(cls):
            cls.defaults = {**cls.method_class.defaults, **vars(cls).get("defaults", {})}

    @property
    def distiller(self) -> Distiller:
        """Teacher, method and log; there once a teacher is found or a checkpoint is loaded."""
        assert self._distiller is not None
        return self._distiller

    @property
    def methods(self) -> MethodClasses:
        """Name -> class of the trainer's own method and those that the setting `weights` adds."""
        return method_classes(type(self).__name__.removeprefix(PREFIX), self.method_class, self.settings)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """The student's optimizer with the adapters as a second parameter group.

        Adapters are built under a forked random state: the student's batches are the same with and without them.
        """
        optimizer, scheduler = super().configure_optimizers()
        if self._distiller is None:
            self.learn_from(self.load_teacher())
        assert self.seed is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + 1)
            method = self._build_method(self.distiller).to(self.device)
        self.distiller.attach(self._inner_network(), method)
        adapters = list(method.parameters())
        if adapters:
            optimizer.add_param_group({"params": adapters})
        return optimizer, scheduler

    def _build_method(self, distiller: Distiller) -> CombinedMethod:
        task = Task(
            num_heads=self.label_manager.num_segmentation_heads,
            regions=self.label_manager.has_regions,
            dimension=len(self.configuration_manager.patch_size),
            ignore_label=self.label_manager.ignore_label,
        )
        stages = read_stages(self._inner_network())
        return combine(self.methods, stages, distiller.teacher_shape, task, self.settings, self.given)

    def learn_from(self, teacher: Teacher) -> None:
        """Take this teacher, before `initialize`."""
        self._distiller = Distiller(teacher.shape, teacher)

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
        needs = {name: method.needs for name, method in self.methods.items()}
        return load_teacher(side, self.settings, needs).to(self.device)

    def _prepare_training(self) -> None:
        """Load the teacher, only where epochs remain; say what is taught and how large both are."""
        super()._prepare_training()
        if self.current_epoch >= self.num_epochs:
            return
        self.distiller.use(self.distiller.teacher or self._load_again(self.distiller))
        self.print_to_log_file(self.describe(), add_timestamp=False)

    def _load_again(self, distiller: Distiller) -> Teacher:
        """Load the teacher of a continued run."""
        try:
            return self.load_teacher()
        except UserError as error:
            first = distiller.origin[0]
            raise UserError(f"{error}\nThis run was started with {first['folder']}/{first['checkpoint']}.") from error

    def describe(self) -> str:
        """Teacher, tap table and sizes, for the log and --dry_run."""
        lines = self.distiller.describe(self.student_size(), *self._patch())
        return "\n".join([*lines, *own_defaults(self.methods, self.given)])

    def _patch(self) -> tuple[list[int], int]:
        """Size and number of channels of a patch."""
        channels = determine_num_input_channels(self.plans_manager, self.configuration_manager, self.dataset_json)
        return self.configuration_manager.patch_size, channels

    def train_step(self, batch: dict) -> dict:
        """One step on L_seg plus the weighted terms (Eq. 5); every term is computed and logged, also at weight 0."""
        data = batch["data"].to(self.device, non_blocking=True)
        target = [output.to(self.device, non_blocking=True) for output in batch["target"]]
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device.type, enabled=self.device.type == "cuda"):
            taught = self.distiller.ask_teacher(data)
            with record_function(STEP_PARTS[1]):
                student = self.distiller.run_student(self.network, data)
                segmentation = self.loss(student.logits, target)
        terms = self.distiller.terms(student, taught, target[0])
        total = segmentation
        for name, factor in self._factors().items():
            if factor != 0:
                total = total + factor * terms[name]
        with record_function(STEP_PARTS[3]):
            self._optimize(total)
        losses = (total, segmentation, *terms.values())
        values = torch.stack([loss.detach().float() for loss in losses]).cpu().numpy()
        self._check_finite(dict(zip(("loss", "segmentation", *terms), values, strict=True)))
        return {"loss": values[0], "terms": values[1:]}

    def _factors(self) -> dict[str, float]:
        """Weight of each term in this epoch; rises linearly over the warm-up."""
        return self.distiller.factors(min(1.0, (self.current_epoch + 1) / (self.settings.warmup_epochs + 1)))

    def _optimize(self, total: Tensor) -> None:
        """Backward and step as nnU-Net does; adapters are synchronized and clipped apart from the student."""
        scaler = self.grad_scaler
        (total if scaler is None else scaler.scale(total)).backward()
        adapters = [parameter for parameter in self.distiller.method.parameters() if parameter.grad is not None]
        if self.is_ddp:
            for gradient in (parameter.grad for parameter in adapters if parameter.grad is not None):
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
        row = self.distiller.log.add(self.current_epoch, means, self._factors())
        for name, value in row.items():
            for logger in self.logger.loggers:
                logger.log(f"hlfd/{name}", value, self.current_epoch)

    def on_epoch_end(self) -> None:
        """As nnU-Net, and rewrite distillation_log.csv and its plot beside progress.png."""
        super().on_epoch_end()
        if self.local_rank == 0:
            self.distiller.log.write(Path(self.output_folder))

    def _record(self) -> dict[str, Any]:
        return {**super()._record(), **self.distiller.record(*self._patch())}

    def _checkpoint_extras(self) -> dict[str, Any]:
        return {**super()._checkpoint_extras(), **self.distiller.state_dict()}

    def _adopt(self, content: Mapping[str, Any], extras: Mapping[str, Any], source: object) -> None:
        super()._adopt(content, extras, source)
        self._distiller = Distiller.from_state(extras)

    def _restore_extras(self, extras: Mapping[str, Any]) -> None:
        self.distiller.load_state_dict(extras)
