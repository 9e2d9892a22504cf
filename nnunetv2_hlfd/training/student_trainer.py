"""The student alone."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunetv2_hlfd.losses.focal_dice import FocalDiceLoss
from nnunetv2_hlfd.networks.choice import student_architecture
from nnunetv2_hlfd.networks.inherit import inherit_weights
from nnunetv2_hlfd.networks.size import Size, measure_size
from nnunetv2_hlfd.teacher.checkpoint import LEAK_WARNING
from nnunetv2_hlfd.teacher.search import StudentSide
from nnunetv2_hlfd.teacher.teacher import Teacher, load_teacher
from nnunetv2_hlfd.training.scheduled_trainer import ScheduledTrainer


class nnUNetTrainerStudent(ScheduledTrainer):
    """The student alone: what every distilled student is compared with.

    Attributes:
        inherited: for checkpoint and record, whose weights the run was started with.
    """

    inherited: Mapping[str, Any] = {}

    def _prepare_plans(self, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        """Put the student in place of the plans' network, so that nnU-Net itself builds and later predicts it."""
        manager = PlansManager(plans)
        config = manager.get_configuration(configuration)
        plans["configurations"][configuration]["architecture"] = student_architecture(
            config.configuration["architecture"],
            self.settings.student,
            config.patch_size,
            determine_num_input_channels(manager, config, dataset_json),
            manager.get_label_manager(dataset_json).num_segmentation_heads,
        )
        super()._prepare_plans(plans, configuration, dataset_json)

    def initialize(self) -> None:
        """Build as nnU-Net does; a new run may start with the teacher's weights.

        The random weights are drawn all the same: the batches are the same with and without inheritance.
        """
        super().initialize()
        if self.settings.initial_weights == "teacher" and not self.adopting:
            first = self.inherited_from().networks[0]
            inherit_weights(self._inner_network(), first.network, self.settings.student)
            self.inherited = {"initial_weights": dict(first.origin)}
            self.print_to_log_file(f"Initial weights: {first.origin['folder']}/{first.origin['checkpoint']}")
            if first.origin["may_have_seen_validation_cases"]:
                self.print_to_log_file(LEAK_WARNING)

    def inherited_from(self) -> Teacher:
        """Whose weights a new run starts with."""
        return self.load_teacher()

    def _build_loss(self) -> nn.Module:
        """nnU-Net's deep-supervision weights around focal Dice (recipe paper) or its own loss (recipe nnunet)."""
        loss = super()._build_loss()
        if self.settings.recipe == "paper":
            loss.loss = FocalDiceLoss(
                regions=self.label_manager.has_regions,
                batch_dice=self.configuration_manager.batch_dice,
                ignore_label=self.label_manager.ignore_label,
                ddp=self.is_ddp,
            )
        return loss

    def _output_weights(self) -> tuple[float, ...]:
        """nnU-Net's deep-supervision weights as its loss is built with them, highest resolution first."""
        return tuple(getattr(self._build_loss(), "weight_factors", (1.0,)))

    def needs(self) -> dict[str, frozenset[str]]:
        """What is asked of a teacher; the student alone asks nothing, it may inherit its weights."""
        return {}

    def load_teacher(self) -> Teacher:
        """Find, check and load the teacher for this student."""
        return load_teacher(self.student_side(), self.settings, self.needs()).to(self.device)

    def student_side(self) -> StudentSide:
        """What a teacher of this student is checked against."""
        return StudentSide(
            plans=self.plans_manager,
            plans_names=self.plans_lineage,
            configuration=self.configuration_name,
            dataset_json=self.dataset_json,
            fold=self.fold,
            validation_cases=self.do_split()[1],
            results_folder=Path(self.output_folder_base).parent,
        )

    @cached_property
    def student_size(self) -> Size:
        """Parameters and operations of the student; measured once, which takes a forward pass."""
        return measure_size(
            self.configuration_manager.configuration["architecture"],
            self.configuration_manager.patch_size,
            determine_num_input_channels(self.plans_manager, self.configuration_manager, self.dataset_json),
            self.label_manager.num_segmentation_heads,
        )

    def _checkpoint_extras(self) -> dict[str, Any]:
        return {**super()._checkpoint_extras(), **self.inherited}

    def _restore_extras(self, extras: Mapping[str, Any]) -> None:
        self.inherited = {name: extras[name] for name in ("initial_weights",) if name in extras}

    def _record(self) -> dict[str, Any]:
        return {**super()._record(), "student": vars(self.student_size), **self.inherited}
