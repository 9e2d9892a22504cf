"""The student alone."""

from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunetv2_hlfd.losses.focal_dice import FocalDiceLoss
from nnunetv2_hlfd.networks.size import Size, measure_size
from nnunetv2_hlfd.networks.students import student_architecture
from nnunetv2_hlfd.training.scheduled_trainer import ScheduledTrainer


class nnUNetTrainerStudent(ScheduledTrainer):
    """The student alone: what every distilled student is compared with."""

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

    def student_size(self) -> Size:
        """Parameters and operations of the student."""
        return measure_size(
            self.configuration_manager.configuration["architecture"],
            self.configuration_manager.patch_size,
            determine_num_input_channels(self.plans_manager, self.configuration_manager, self.dataset_json),
            self.label_manager.num_segmentation_heads,
        )

    def _record(self) -> dict[str, Any]:
        return {**super()._record(), "student": vars(self.student_size())}
