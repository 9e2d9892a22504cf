"""A trained model folder of nnU-Net, `.../TRAINER__PLANS__CONFIGURATION`, whatever it is called now."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunetv2_hlfd.datasets.dataset_json import read_dataset_json
from nnunetv2_hlfd.models.checkpoints import read_checkpoint
from nnunetv2_hlfd.models.fold import BEST, FINAL, LATEST, FoldFolder, folds_with
from nnunetv2_hlfd.models.network import restore_network
from nnunetv2_hlfd.plans.plans_check import check_configuration, check_folder_name, check_plans
from nnunetv2_hlfd.settings.settings import PLANS_KEY
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json, refuse_damage


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A model and the data set that it was trained on, as its files describe them.

    Attributes:
        path: Of the folder. Its name is a title, and the last resort where no checkpoint says what the model is.
        plans: nnU-Net's view of plans.json.
        dataset_json: Content of dataset.json.
        configuration: Its name, such as 2d.
        trainer: The class that trained the model.
        network_trainer: The class that builds the network: nnU-Net's own where the plans describe the network.
        mirror_axes: Spatial axes that prediction may mirror; None for none.
    """

    path: Path
    plans: PlansManager
    dataset_json: dict[str, Any]
    configuration: str
    trainer: str
    network_trainer: str
    mirror_axes: tuple[int, ...] | None

    @classmethod
    def open(cls, path: Path, checkpoint: Path | None = None) -> "ModelFolder":
        """Read what describes the model; no weights.

        Args:
            path: The model folder.
            checkpoint: The file that says which configuration of the plans was trained by which trainer. Unset: the
                first readable one of the folder, else the folder's name.

        Raises:
            UserError: for another folder, damaged files, or a model without checkpoint and a name of its own.
        """
        plans, dataset_json = read_description(path)
        if checkpoint is not None:
            identity = _read_identity(checkpoint)
        else:
            identity = _first_identity(path) or _identity_by_name(path, plans.plans)
        return cls(path=path, plans=plans, dataset_json=dataset_json, **identity)

    @property
    def name(self) -> str:
        """The folder's name, for titles."""
        return self.path.resolve().name

    @property
    def file_ending(self) -> str:
        """Ending of the model's images and label maps, such as .nii.gz."""
        return str(self.dataset_json["file_ending"])

    def fold(self, fold: int | str) -> FoldFolder:
        """The folder of a fold, such as 0 or all."""
        return FoldFolder(self.path / f"fold_{fold}")

    @cached_property
    def configuration_manager(self) -> ConfigurationManager:
        """nnU-Net's view of the configuration.

        Raises:
            UserError: for plans that describe no network, or one out of all proportion, or labels that are none.
        """
        with refuse_damage(self.path / "dataset.json"):
            self.plans.get_label_manager(self.dataset_json)  # nnU-Net's own check
        check_configuration(self.plans, self.configuration, self.path / "plans.json")
        return self.plans.get_configuration(self.configuration)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, *patch) of the network's input; C includes the previous stage's labels of a cascade.

        Raises:
            UserError: for damaged files.
        """
        configuration = self.configuration_manager
        with refuse_damage(f"The plans.json or dataset.json in {self.path}"):
            channels = determine_num_input_channels(self.plans, configuration, self.dataset_json)
        return (channels, *map(int, configuration.patch_size))

    def network(self, checkpoint: Path, *, deep_supervision: bool = False) -> nn.Module:
        """Restore the network of a checkpoint, frozen and in eval mode.

        Args:
            checkpoint: File in the folder of one of the folds.
            deep_supervision: False: its output is one tensor, the logits in full resolution, as in prediction.

        Raises:
            UserError: for a missing or damaged checkpoint, or plans that do not fit it.
        """
        content = read_checkpoint(checkpoint, optional=())
        return restore_network(
            content,
            self.plans,
            self.configuration_manager,
            self.dataset_json,
            checkpoint,
            deep_supervision=deep_supervision,
        )

    def train_command(self, fold: int | str, *flags: str) -> str:
        """The command that trains or validates a fold of the model, for messages."""
        words = [self.plans.dataset_name, self.configuration, str(fold), "-tr", self.trainer, "-p"]
        return shlex.join(["nnUNetv2_train", *words, self.plans.plans_name, *flags])


def read_description(path: Path) -> tuple[PlansManager, dict[str, Any]]:
    """Read and check plans.json and dataset.json of a model folder.

    Raises:
        UserError: for another folder or damaged files.
    """
    try:
        plans, dataset_json = read_json(path / "plans.json"), read_dataset_json(path / "dataset.json")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"Expected a model folder of nnU-Net with plans.json and dataset.json, no {error.filename}."
        ) from error
    with refuse_damage(path / "plans.json"):
        check_plans(plans, path / "plans.json")
    return PlansManager(plans), dataset_json


def _read_identity(checkpoint: Path) -> dict[str, Any]:
    """Which model a checkpoint is of."""
    content = read_checkpoint(
        checkpoint,
        required=("trainer_name", "init_args"),
        optional=(PLANS_KEY, "inference_allowed_mirroring_axes"),
    )
    with refuse_damage(checkpoint):
        extras = content.get(PLANS_KEY)
        network_trainer, configuration = content["trainer_name"], content["init_args"]["configuration"]
        trainer = extras.get("trainer", network_trainer) if isinstance(extras, Mapping) else network_trainer
        for key, name in (("trainer_name", network_trainer), ("trainer", trainer), ("configuration", configuration)):
            check_folder_name(key, name, checkpoint)
        axes = content.get("inference_allowed_mirroring_axes")
        mirror_axes = None if axes is None else tuple(int(axis) for axis in axes)
        if mirror_axes is not None and sorted({*mirror_axes} & {0, 1, 2}) != sorted(mirror_axes):
            raise UserError(f"{checkpoint} is damaged: expected different axes of an image, got {mirror_axes!r:.80}.")
    return {
        "configuration": configuration,
        "trainer": trainer,
        "network_trainer": network_trainer,
        "mirror_axes": mirror_axes,
    }


def _first_identity(path: Path) -> dict[str, Any] | None:
    """Which model the first readable checkpoint of a folder is of."""
    checkpoints = [path / f"fold_{fold}" / name for name in (FINAL, BEST, LATEST) for fold in folds_with(path, name)]
    for checkpoint in checkpoints:
        try:
            return _read_identity(checkpoint)
        except UserError:
            continue
    return None


def _identity_by_name(path: Path, plans: Mapping[str, Any]) -> dict[str, Any]:
    """Which model a folder without checkpoints is of.

    Raises:
        UserError: where its name is not nnU-Net's.
    """
    trainer, _, configuration = [*path.resolve().name.split("__"), "", ""][:3]
    if configuration not in plans["configurations"]:
        raise UserError(
            f"Expected a readable checkpoint in a fold of {path}, or the name that nnU-Net gave the folder, "
            f"TRAINER__PLANS__CONFIGURATION: nothing else says which configuration of the plans was trained."
        )
    return {
        "configuration": configuration,
        "trainer": plans.get(PLANS_KEY, {}).get("trainer", trainer),
        "network_trainer": trainer,
        "mirror_axes": None,
    }
