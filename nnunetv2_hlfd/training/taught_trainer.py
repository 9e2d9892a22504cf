"""A student with a teacher beside it: found, checked, kept in checkpoint and record. How it teaches is a subclass's."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

from nnunetv2_hlfd.distillation.combined import CombinedMethod, MethodClasses, combine, method_classes, own_defaults
from nnunetv2_hlfd.distillation.method import DistillationMethod, Task, TeacherShape
from nnunetv2_hlfd.distillation.registry import PREFIX
from nnunetv2_hlfd.distillation.requests import MapRequest
from nnunetv2_hlfd.distillation.taps import read_stages
from nnunetv2_hlfd.teacher.stored.checks import check_memory
from nnunetv2_hlfd.teacher.stored.teacher import StoredTeacher, find_stored_teacher
from nnunetv2_hlfd.teacher.teacher import Teacher
from nnunetv2_hlfd.training.augmentation import CarryMaps
from nnunetv2_hlfd.training.distiller import Distiller
from nnunetv2_hlfd.training.source_ratio import SourceRatio
from nnunetv2_hlfd.training.student_trainer import nnUNetTrainerStudent
from nnunetv2_hlfd.utilities.errors import UserError


class TaughtTrainer(nnUNetTrainerStudent):
    """A student and its frozen teacher.

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
            self.learn_from(self.find_teacher())
        assert self.seed is not None
        task = self._task()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + 1)
            method = self._build_method(self.distiller, task).to(self.device)
        self.distiller.attach(self._inner_network(), method, self._source_ratio(method, task))
        adapters = list(method.parameters())
        if adapters:
            optimizer.add_param_group({"params": adapters})
        return optimizer, scheduler

    def _task(self) -> Task:
        return Task(
            num_heads=self.label_manager.num_segmentation_heads,
            regions=self.label_manager.has_regions,
            dimension=len(self.configuration_manager.patch_size),
            ignore_label=self.label_manager.ignore_label,
            batch_dice=self.configuration_manager.batch_dice,
            output_weights=self._output_weights(),
            ddp=self.is_ddp,
        )

    def _build_method(self, distiller: Distiller, task: Task) -> CombinedMethod:
        stages = read_stages(self._inner_network())
        return combine(self.methods, stages, distiller.teacher_shape, task, self.settings, self.given)

    def _source_ratio(self, method: CombinedMethod, task: Task) -> SourceRatio | None:
        """What multiplies the weights of terms whose source has another segmentation loss."""
        sources = {term: name for term, name in method.source_losses.items() if method.weights[term] != 0}
        loss = self._build_loss()
        own = "focal_dice" if self.settings.recipe == "paper" else ""
        ratio = SourceRatio(getattr(loss, "loss", loss), own, sources, task)
        return ratio if self.settings.source_ratio and ratio.terms else None

    def learn_from(self, teacher: Teacher | StoredTeacher) -> None:
        """Take this teacher, before `initialize`."""
        self._distiller = Distiller(teacher.shape, teacher)

    def find_teacher(self) -> Teacher | StoredTeacher:
        """Load the teacher, or find its stored maps."""
        if self.settings.teacher_maps == "live":
            return self.load_teacher()
        training, _ = super().get_tr_and_val_datasets()
        trainer = type(self).__name__
        return find_stored_teacher(self.student_side(), training, self.settings, self.needs(), trainer, self.requests)

    def requests(self, teacher_shape: TeacherShape) -> tuple[MapRequest, ...]:
        """What the methods ask of a teacher of that shape beside its final map. Nothing is allocated for it."""
        with torch.device("meta"):
            network = self.build_network_architecture(
                self.plans_manager,
                self.configuration_manager,
                self._patch()[1],
                self.label_manager.num_segmentation_heads,
                self.enable_deep_supervision,
            )
            stages = read_stages(network)
            return combine(self.methods, stages, teacher_shape, self._task(), self.settings, self.given).requests()

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
        if self._do_i_compile() and isinstance(self.distiller.teacher, Teacher):
            self.distiller.teacher.compile()

    def _find_again(self, distiller: Distiller) -> Teacher | StoredTeacher:
        """Find the teacher of a continued run."""
        try:
            return self.find_teacher()
        except UserError as error:
            first = distiller.origin[0]
            raise UserError(f"{error}\nThis run was started with {first['folder']}/{first['checkpoint']}.") from error

    def describe(self) -> str:
        """Teacher, tap table and sizes, for the log and --dry_run."""
        lines = self.distiller.describe(self.student_size, *self._patch())
        return "\n".join([*lines, *own_defaults(self.methods, self.given)])

    def _patch(self) -> tuple[list[int], int]:
        """Size and number of channels of a patch."""
        channels = determine_num_input_channels(self.plans_manager, self.configuration_manager, self.dataset_json)
        return self.configuration_manager.patch_size, channels

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
