"""The base of all distillation trainers. Loss weights are applied here and nowhere else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.distributed as dist
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from torch import Tensor, autocast
from torch._functorch import config as functorch_config
from torch.profiler import record_function

from nnunetv2_hlfd.distillation.combined import CombinedMethod, MethodClasses, combine, method_classes, own_defaults
from nnunetv2_hlfd.distillation.log import mean_of_known
from nnunetv2_hlfd.distillation.method import DistillationMethod, Task
from nnunetv2_hlfd.distillation.registry import PREFIX
from nnunetv2_hlfd.distillation.taps import read_stages
from nnunetv2_hlfd.teacher.stored.checks import check_memory
from nnunetv2_hlfd.teacher.stored.teacher import StoredTeacher, find_stored_teacher
from nnunetv2_hlfd.teacher.teacher import Teacher
from nnunetv2_hlfd.training.augmentation import CarryMaps
from nnunetv2_hlfd.training.backward import backward, balanced_backward, step, weigh
from nnunetv2_hlfd.training.balance import Choice
from nnunetv2_hlfd.training.distiller import STEP_PARTS, Distiller
from nnunetv2_hlfd.training.schedule import distillation_ramp
from nnunetv2_hlfd.training.student_trainer import nnUNetTrainerStudent
from nnunetv2_hlfd.utilities.errors import UserError


class DistillationTrainer(nnUNetTrainerStudent):
    """A student that learns from a frozen teacher.

    The teacher and the method's adapters live outside self.network: the student's weights stay those of a plain
    nnU-Net network.

    Attributes:
        method_class: the terms and adapters of the method. Its `defaults` are the trainer's.
    """

    method_class: ClassVar[type[DistillationMethod]]
    _distiller: Distiller | None = None
    _step_of_epoch = 0

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

    def initialize(self) -> None:
        """As the student's. A gradient for each term needs the compiled graph several times.

        torch.compile's backward graph gives the buffers of the forward pass away unless it is told not to before it
        compiles.
        """
        if self.settings.balance != "none" and hasattr(functorch_config, "donated_buffer"):
            functorch_config.donated_buffer = False
            if self._do_i_compile():
                self.print_to_log_file("balance: torch._functorch.config.donated_buffer is switched off")
        super().initialize()

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """The student's optimizer with the adapters as a second parameter group.

        Adapters are built under a forked random state: the student's batches are the same with and without them.
        """
        optimizer, scheduler = super().configure_optimizers()
        if self._distiller is None:
            self.learn_from(self.find_teacher())
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
            batch_dice=self.configuration_manager.batch_dice,
            output_weights=self._output_weights(),
            ddp=self.is_ddp,
        )
        stages = read_stages(self._inner_network())
        return combine(self.methods, stages, distiller.teacher_shape, task, self.settings, self.given)

    def learn_from(self, teacher: Teacher | StoredTeacher) -> None:
        """Take this teacher, before `initialize`."""
        self._distiller = Distiller(teacher.shape, teacher)

    def find_teacher(self) -> Teacher | StoredTeacher:
        """Load the teacher, or find its stored maps."""
        if self.settings.teacher_maps == "live":
            return self.load_teacher()
        training, _ = super().get_tr_and_val_datasets()
        return find_stored_teacher(self.student_side(), training, self.settings, self.needs())

    def inherited_from(self) -> Teacher:
        """The teacher that is there already, or the one whose maps are stored."""
        teacher = self.distiller.teacher
        return teacher if isinstance(teacher, Teacher) else self.load_teacher()

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's; images of training cases carry a teacher's stored maps."""
        training, validation = super().get_tr_and_val_datasets()
        stored = self.distiller.stored
        return stored.with_maps(training) if stored else training, validation

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> BasicTransform:
        """The student's augmentation, which stored maps go through beside the image."""
        pipeline = super().get_training_transforms(*args, **kwargs)
        stored = self.distiller.stored
        return CarryMaps(pipeline, stored.channels) if stored else pipeline

    def needs(self) -> dict[str, frozenset[str]]:
        """What the methods ask of a teacher."""
        return {name: method.needs for name, method in self.methods.items()}

    def _mirroring_axes(self, planned: tuple[int, ...]) -> tuple[int, ...] | None:
        """A teacher that was trained without mirroring, for left and right labels, is shown no mirrored patch."""
        if self.settings.mirroring == "teacher":
            return self.distiller.mirroring_axes(planned)
        return super()._mirroring_axes(planned)

    def _prepare_training(self) -> None:
        """Load the teacher, only where epochs remain; say what is taught and how large both are."""
        super()._prepare_training()
        if self.current_epoch >= self.num_epochs:
            return
        self.distiller.use(self.distiller.teacher or self._find_again(self.distiller))
        if self.distiller.stored:
            *_, initial_patch, _ = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
            check_memory(self.distiller.stored.channels, initial_patch)
        self.print_to_log_file(self.describe(), add_timestamp=False)

    def _find_again(self, distiller: Distiller) -> Teacher | StoredTeacher:
        """Find the teacher of a continued run."""
        try:
            return self.find_teacher()
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

    def on_epoch_start(self) -> None:
        """As nnU-Net; an epoch starts with a step that the teacher teaches."""
        super().on_epoch_start()
        self._step_of_epoch = 0

    def train_step(self, batch: dict) -> dict:
        """One step on L_seg plus the weighted terms (Eq. 5); every term is computed and logged, also at weight 0.

        Steps between those of `teach_every`, and all after `distill_until`, are those of the student alone.
        """
        distilled = self._step_of_epoch % self.settings.teach_every == 0 and self._ramp() > 0
        self._step_of_epoch += 1
        if distilled:
            return self._distilled_step(batch)
        data, _ = self.distiller.split(batch["data"])
        loss = super().train_step({**batch, "data": data})["loss"]
        return {"loss": loss, "terms": np.array([loss, *(np.nan for _ in self.distiller.method.weights)])}

    def _distilled_step(self, batch: dict) -> dict:
        data, shown = self.distiller.split(batch["data"].to(self.device, non_blocking=True))
        target = [output.to(self.device, non_blocking=True) for output in batch["target"]]
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device.type, enabled=self.device.type == "cuda"):
            teacher = self.distiller.ask_teacher(shown)
            with record_function(STEP_PARTS[1]):
                student = self.distiller.run_student(self.network, data)
                segmentation = self.loss(student.logits, target)
        terms = self.distiller.terms(student, teacher, target[0])
        with record_function(STEP_PARTS[3]):
            total, balanced = self._optimize(segmentation, terms)
        losses = (total, segmentation, *terms.values())
        values = torch.stack([loss.detach().float() for loss in losses]).cpu().numpy()
        self._check_finite(dict(zip(("loss", "segmentation", *terms), values, strict=True)))
        return {"loss": values[0], "terms": values[1:], **balanced}

    def _ramp(self) -> float:
        """Share of the distillation weights in this epoch."""
        return distillation_ramp(
            self.current_epoch,
            self.num_epochs,
            warmup_epochs=self.settings.warmup_epochs,
            until=self.settings.distill_until,
            decay=self.settings.distill_decay,
        )

    def _optimize(self, segmentation: Tensor, terms: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """Backward and step on the total loss; returns it, and what the balance of the gradients did, for the log."""
        method, balanced = self.distiller.method, {}
        factors = {name: factor for name, factor in self.distiller.factors(self._ramp()).items() if factor != 0}
        reference, weighted = weigh(segmentation, terms, factors, method.segmentation_terms)
        total = sum(weighted.values(), start=reference)
        adapters = list(method.parameters())
        if self.settings.balance == "none" or not weighted:
            backward(total, adapters, self.grad_scaler, self.is_ddp)
        else:
            record = balanced_backward(
                reference,
                weighted,
                self._inner_network(),
                adapters,
                self.grad_scaler,
                self.is_ddp,
                cast(Choice, self.settings.balance),
                self.settings.balance_ratio,
            )
            balanced = {"balance": record}
        step(self.optimizer, self.network, adapters, self.grad_scaler)
        return total, balanced

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """Log nnU-Net's loss, every named term, and what the balance of the gradients kept of it."""
        super().on_train_epoch_end([{"loss": output["loss"]} for output in train_outputs])
        means = mean_of_known([output["terms"] for output in train_outputs])
        if self.is_ddp:
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, means)
            means = mean_of_known(gathered)
        log, epoch = self.distiller.log, self.current_epoch
        row = log.add(epoch, means, self.distiller.factors(self._ramp()))
        if self.settings.balance != "none":
            row |= log.add_balance(epoch, [output["balance"] for output in train_outputs if "balance" in output])
        for name, value in row.items():
            for logger in self.logger.loggers:
                logger.log(f"hlfd/{name}", value, epoch)

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
        super()._restore_extras(extras)
        self.distiller.load_state_dict(extras)
