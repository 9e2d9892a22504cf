"""nnU-Net's trainer under this package's settings: schedule, seeds, augmentation, one step."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.plans.identity import plans_lineage
from nnunetv2_hlfd.plans.plans_check import check_configuration, check_plans
from nnunetv2_hlfd.settings.settings import PLANS_KEY, Settings, given_settings
from nnunetv2_hlfd.training.augmentation import keep_rotation_and_flips, make_reproducible
from nnunetv2_hlfd.training.cascade import choose_previous_stage
from nnunetv2_hlfd.training.nnunet_version import check_nnunet_version
from nnunetv2_hlfd.training.replacement import Replacement
from nnunetv2_hlfd.training.schedule import (
    draw_seed,
    keep_thread_limit,
    paper_optimizer,
    rounds_to_none,
    seed_everything,
)
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage


class ConfiguredTrainer(nnUNetTrainer):
    """Trains the plans' network with nnU-Net's loss, as the settings say.

    Attributes:
        defaults: settings in which a trainer class differs from `Settings`' defaults.
        continues: whether the run goes on from a checkpoint; `resumed`: whether that checkpoint was read.
        adopting: whether a checkpoint decides the network and its weights.
    """

    defaults: ClassVar[Mapping[str, Any]] = {}
    oversample_foreground_percent: float

    @refuse_damage("The plans file or dataset.json")
    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net reads this signature)
    ) -> None:
        check_nnunet_version()
        choose_device(device.type)
        plans = deepcopy(plans)
        check_plans(plans, "The plans file")
        self.given = given_settings(plans)
        self.settings = Settings.from_dict({**self.defaults, **self.given})
        self.continues, self.adopting, self.resumed = bool(plans.get("continue_training")), False, False
        self.plans_lineage = plans_lineage(plans)
        check_configuration(PlansManager(plans), configuration, "The plans file")
        self._prepare_plans(plans, configuration, dataset_json)
        super().__init__(plans, configuration, fold, dataset_json, device)
        Replacement(self).recover()
        self.seed = self.settings.seed
        self._apply_settings()
        keep_thread_limit(self.device)

    def _prepare_plans(self, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        """Write the settings into this run's own copy of the plans, which goes to the model folder."""
        if self.settings.batch_size is not None:
            plans["configurations"][configuration]["batch_size"] = self.settings.batch_size
        plans[PLANS_KEY] = {
            "base_plans": self.plans_lineage[-1],
            "trainer": type(self).__name__,
            "settings": self.settings.to_dict(),
        }

    def _apply_settings(self) -> None:
        settings = self.settings
        self.initial_lr, self.num_epochs = settings.learning_rate, settings.epochs
        self.num_iterations_per_epoch = settings.num_iterations_per_epoch
        self.num_val_iterations_per_epoch = settings.num_val_iterations_per_epoch
        self.save_every = self.num_epochs  # nnU-Net would write `latest` before `best` is updated; see on_epoch_end
        choose_previous_stage(self, settings.previous_stage)

    def initialize(self) -> None:
        """Seed, then build: for one seed every method starts from the same student weights."""
        if self.seed is None:
            drawn = [draw_seed()]
            if self.is_ddp:
                dist.broadcast_object_list(drawn)
            self.seed = drawn[0]
        seed_everything(self.seed)
        super().initialize()

    def _set_batch_size_and_oversample(self) -> None:
        """nnU-Net's; probabilistic where it rounds the patches around foreground of a small batch to none."""
        percent, batch_size = self.oversample_foreground_percent, self.configuration_manager.batch_size
        super()._set_batch_size_and_oversample()
        if rounds_to_none(batch_size, percent):
            self.probabilistic_oversampling, self.oversample_foreground_percent = True, percent
            self.print_to_log_file(
                f"batch_size {batch_size}: nnU-Net rounds {percent:.0%} of a batch to no patch around foreground. Each "
                f"patch is taken around foreground with this probability instead."
            )

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Adam and cosine (recipe paper) or nnU-Net's own (recipe nnunet)."""
        if self.settings.recipe == "nnunet":
            return super().configure_optimizers()
        return paper_optimizer(self.network.parameters(), self.initial_lr, self.num_epochs)

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> BasicTransform:
        """nnU-Net's augmentation; with augmentation=paper only rotation and mirroring of it."""
        pipeline = super().get_training_transforms(*args, **kwargs)
        if self.settings.augmentation == "paper":
            keep_rotation_and_flips(pipeline)
        make_reproducible(pipeline)
        return pipeline

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:  # noqa: N802 (nnU-Net's)
        """nnU-Net's, with the axes of the setting mirroring, which prediction mirrors as well."""
        *others, planned = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        axes = self._mirroring_axes(planned)
        if axes != planned:
            self.print_to_log_file(f"Mirroring: axes {axes or 'none'} instead of {planned}")
        self.inference_allowed_mirroring_axes = axes
        return (*others, axes)

    def _mirroring_axes(self, planned: tuple[int, ...]) -> tuple[int, ...] | None:
        return None if self.settings.mirroring == "none" else planned

    def on_epoch_start(self) -> None:
        """Reseed from (seed, epoch, rank), so that a resumed run needs no stored random state."""
        assert self.seed is not None
        seed_everything(self.seed, self.current_epoch, self.local_rank)
        super().on_epoch_start()

    def train_step(self, batch: dict) -> dict:
        """nnU-Net's step; stops on a loss that is not finite."""
        outputs = super().train_step(batch)
        self._check_finite({"segmentation": float(outputs["loss"])})
        return outputs

    def _check_finite(self, terms: Mapping[str, float]) -> None:
        """Raise for a non-finite loss. An inf gradient under GradScaler is no error: that step is skipped."""
        for name, value in terms.items():
            if not np.isfinite(value):
                raise UserError(
                    f"The loss term '{name}' became {value} in epoch {self.current_epoch}. The last checkpoint is "
                    "kept. Lower the setting initial_lr or this term's weight, and look for non-finite values in the "
                    "data."
                )
