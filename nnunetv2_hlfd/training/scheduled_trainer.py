"""A run of a trainer: refusals at its start, its lock and record, checkpoints that survive a kill, resume."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunetv2_hlfd.models.checkpoints import write_checkpoint
from nnunetv2_hlfd.models.split import check_fold
from nnunetv2_hlfd.plans.identity import RECORD_FILE, check_folder_settings, check_resumed_settings
from nnunetv2_hlfd.plans.plans_check import check_configuration, check_plans
from nnunetv2_hlfd.plans.preprocessed import check_preprocessed
from nnunetv2_hlfd.settings.settings import PLANS_KEY, Settings, overwrite_runs
from nnunetv2_hlfd.training.cascade import check_previous_stage
from nnunetv2_hlfd.training.configured_trainer import ConfiguredTrainer
from nnunetv2_hlfd.training.finite_data import check_finite_data
from nnunetv2_hlfd.training.replacement import Replacement
from nnunetv2_hlfd.training.resume import check_network_fits, checkpoint_of, read_checkpoint_of_run, restore
from nnunetv2_hlfd.training.start import nothing_left
from nnunetv2_hlfd.utilities.atomic import write_json
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage
from nnunetv2_hlfd.utilities.lock import LOCK_FILE, locked
from nnunetv2_hlfd.utilities.orphans import end_forks_with_this_process


class ScheduledTrainer(ConfiguredTrainer):
    """Base of all trainers of this package.

    Attributes:
        checkpoint_trainer: the trainer that can build this network from the plans, for prediction.
        has_started: whether it was not refused; from then on, its log says what happened.
    """

    checkpoint_trainer: ClassVar[str] = nnUNetTrainer.__name__
    has_started = False
    _replacement: Replacement | None = None

    def initialize(self) -> None:
        """As nnU-Net; a refusal leaves nothing behind."""
        with nothing_left(self):
            super().initialize()

    def run_training(self) -> None:
        """As nnU-Net, while no other process trains or validates this fold."""
        end_forks_with_this_process()
        with nothing_left(self), self._locked():
            self._replacement = Replacement(self)
            try:
                super().run_training()
            finally:
                self._replacement.give_up()

    def _locked(self) -> AbstractContextManager[None]:
        if self.local_rank != 0:
            return nullcontext()
        work = f"a training of fold {self.fold} with {type(self).__name__}"
        return locked(Path(self.output_folder_base), work, name=f".fold_{self.fold}{LOCK_FILE}")

    def on_train_start(self) -> None:
        """Refuse what would be wrong, then start as nnU-Net does and write the record of this run."""
        self.check_start()
        self.has_started = True
        if self._replacement:
            self._replacement.begin(anew=not self.resumed and not self.disable_checkpointing)
        super().on_train_start()
        if self._replacement:
            self._replacement.go_on()
        if self.local_rank == 0 and self.current_epoch < self.num_epochs:
            write_json(Path(self.output_folder) / RECORD_FILE, self._record())

    def check_start(self) -> None:
        """Everything that can refuse a training, before anything is written."""
        if self.continues and not self.resumed:
            raise UserError(
                f"--c was given, but there is no checkpoint to continue from in {self.output_folder}. "
                "Start without --c."
            )
        if not self.resumed:
            check_preprocessed(self.plans_manager.plans, self.configuration_name)
            check_fold(self.plans_manager.dataset_name, self.fold)
            check_folder_settings(Path(self.output_folder_base), self.settings, self.fold, overwrite=overwrite_runs())
        check_previous_stage(self, [case for cases in self.do_split() for case in cases])
        if not self.was_initialized:
            self.initialize()
        if not self.resumed and self.local_rank == 0:
            check_finite_data(self)
        self._prepare_training()

    def _prepare_training(self) -> None:
        """Load what training needs beyond nnU-Net, and say what it is."""
        if self.is_cascaded:
            self.print_to_log_file(f"Previous stage: {self.folder_with_segs_from_previous_stage}", add_timestamp=False)

    def _record(self) -> dict[str, Any]:
        """Content of distillation.json."""
        packages = ("nnunetv2_hlfd", "nnunetv2", "torch", "dynamic_network_architectures", "numpy")
        return {
            "trainer": type(self).__name__,
            "given": self.settings.to_dict(),
            "settings": self._resolved_settings(),
            "versions": {name: version(name) for name in packages},
            "previous_stage": self.folder_with_segs_from_previous_stage,
        }

    def _resolved_settings(self) -> dict[str, Any]:
        return {**self.settings.to_dict(), "seed": self.seed}

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """As nnU-Net; `--val` comes here without a start of training."""
        with nothing_left(self), self._locked():
            check_previous_stage(self, self.do_split()[1])
            super().perform_actual_validation(save_probabilities)

    def on_epoch_end(self) -> None:
        """As nnU-Net, but checkpoint_latest comes after checkpoint_best and holds the updated best value."""
        super().on_epoch_end()
        if self.current_epoch % self.settings.save_every == 0 and self.current_epoch < self.num_epochs:
            self.current_epoch -= 1  # nnU-Net has counted on already; a checkpoint names the epoch after its own
            self.save_checkpoint(str(Path(self.output_folder) / "checkpoint_latest.pth"))
            self.current_epoch += 1

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's checkpoint plus the `hlfd` key, atomically.

        trainer_name is nnU-Net's own trainer where it can build the network from the plans: prediction, export and
        ensembling then need neither this package nor nnUNet_extTrainer.
        """
        if self.disable_checkpointing:
            self.print_to_log_file("No checkpoint written, checkpointing is disabled")
            return
        if self.local_rank == 0:
            content = {
                **checkpoint_of(self, self._inner_network()),
                "trainer_name": self.checkpoint_trainer,
                PLANS_KEY: self._checkpoint_extras(),
            }
            write_checkpoint(content, Path(filename))
        if self._replacement:
            self._replacement.complete()

    def _checkpoint_extras(self) -> dict[str, Any]:
        return {"trainer": type(self).__name__, "settings": self._resolved_settings(), "given": self.given}

    def load_checkpoint(self, filename: Any) -> None:
        """Adopt settings and architecture from the checkpoint, then restore what `save_checkpoint` wrote.

        Raises:
            UserError: for a damaged checkpoint, naming those beside it that are whole, or one of another run.
        """
        with nothing_left(self):
            self._load(filename)
        self.resumed = True

    def _load(self, filename: str) -> None:
        content = read_checkpoint_of_run(Path(filename))
        extras = content.get(PLANS_KEY)
        if not isinstance(extras, dict) or extras.get("trainer") != type(self).__name__:
            raise UserError(
                f"{filename} was not written by {type(self).__name__} but by "
                f"{extras.get('trainer') if isinstance(extras, dict) else content['trainer_name']}."
            )
        with refuse_damage(filename):
            check_resumed_settings(self.given, extras["settings"], filename)
            if not self.was_initialized:
                self.adopting = True
                self._adopt(content, extras, filename)
                self.initialize()
            restore(self, self._inner_network(), content)
            self._restore_extras(extras)

    def _adopt(self, content: Mapping[str, Any], extras: Mapping[str, Any], source: object) -> None:
        """Take what decides the network and the schedule from a checkpoint, before anything is built."""
        plans, settings = content["init_args"]["plans"], extras["settings"]
        check_plans(plans, source)
        self.plans_manager = PlansManager(plans)
        check_configuration(self.plans_manager, self.configuration_name, source)
        self.configuration_manager = self.plans_manager.get_configuration(self.configuration_name)
        self.seed = settings["seed"]
        seed = plans[PLANS_KEY]["settings"]["seed"]
        self.settings = Settings.from_dict({"source_ratio": False, **settings, "seed": seed})  # not known before 0.2
        self.given = dict(extras.get("given", settings))  # checkpoints before 0.2 do not tell them apart
        self._apply_settings()
        check_network_fits(self, content["network_weights"])

    def _restore_extras(self, extras: Mapping[str, Any]) -> None:
        """Restore what `_checkpoint_extras` of a subclass added; nothing here."""

    def _inner_network(self) -> nn.Module:
        """The network below DDP and torch.compile, as far as it is wrapped already."""
        network: Any = self.network
        for wrapped in ("module", "_orig_mod"):
            network = getattr(network, wrapped, network)
        return network


class nnUNetTrainerTeacher(ScheduledTrainer):
    """A teacher: the plans' own network and nnU-Net's loss under this package's schedule settings."""
