"""A trained model folder, read without running code from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunetv2_hlfd.models.checkpoints import read_checkpoint
from nnunetv2_hlfd.models.network import restore_network
from nnunetv2_hlfd.plans.plans_check import check_configuration, check_folder_name, check_plans
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json, refuse_damage


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model folder TRAINER__PLANS__CONFIGURATION of nnU-Net and the checkpoints of its folds."""

    folder: Path
    plans: Mapping[str, Any]
    dataset_json: Mapping[str, Any]
    configuration_name: str
    trainer_name: str
    mirror_axes: tuple[int, ...] | None
    checkpoint: str
    checkpoints: Mapping[str, Mapping[str, Any]]  # fold to content

    @property
    def folds(self) -> list[str]:
        """Such as 0 or all."""
        return list(self.checkpoints)

    def file(self, fold: str) -> Path:
        """The checkpoint of a fold."""
        return self.folder / f"fold_{fold}" / self.checkpoint

    @property
    def manager(self) -> PlansManager:
        """nnU-Net's view of the plans."""
        return PlansManager(dict(self.plans))

    @property
    def configuration(self) -> ConfigurationManager:
        """nnU-Net's view of the configuration."""
        return self.manager.get_configuration(self.configuration_name)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, *patch) of the network's input; C includes the previous stage's labels of a cascade."""
        channels = determine_num_input_channels(self.manager, self.configuration, dict(self.dataset_json))
        return (channels, *map(int, self.configuration.patch_size))

    def network(self, fold: str) -> nn.Module:
        """A fold's network for prediction: without deep supervision, in eval mode."""
        return restore_network(
            self.checkpoints[fold],
            self.manager,
            self.configuration,
            self.dataset_json,
            self.file(fold),
            deep_supervision=False,
        )


def read_source(model: Path, folds: Sequence[str] | None, checkpoint: str) -> Source:
    """Read and check a model folder.

    Args:
        model: folder TRAINER__PLANS__CONFIGURATION.
        folds: such as 0 or all; unset: all that have the checkpoint.
        checkpoint: file in the fold's folder.

    Raises:
        UserError: for a folder that is no model or lacks a fold, or damaged files.
    """
    plans, dataset_json = _read(model / "plans.json"), _read(model / "dataset.json")
    folds = list(folds) if folds else _available_folds(model, checkpoint)
    contents = {fold: read_checkpoint(model / f"fold_{fold}" / checkpoint) for fold in folds}
    first = contents[folds[0]]
    with refuse_damage(f"A file in {model} (plans.json or {checkpoint})"):
        configuration, trainer = first["init_args"]["configuration"], first["trainer_name"]
        axes = first.get("inference_allowed_mirroring_axes")
        check_plans(plans, model / "plans.json")
        check_configuration(PlansManager(plans), configuration, model / "plans.json")
        for key, name in (("trainer_name", trainer), ("configuration", configuration)):
            check_folder_name(key, name, model / f"fold_{folds[0]}" / checkpoint)
        mirror_axes = tuple(int(axis) for axis in axes) if axes is not None else None
    return Source(
        folder=model,
        plans=plans,
        dataset_json=dataset_json,
        configuration_name=configuration,
        trainer_name=trainer,
        mirror_axes=mirror_axes,
        checkpoint=checkpoint,
        checkpoints=contents,
    )


def read_exported(model: Path) -> Source:
    """Read a folder that `nnUNetv2_hlfd export -to onnx` or `openvino` wrote; its networks are no checkpoints."""
    plans, dataset_json = _read(model / "plans.json"), _read(model / "dataset.json")
    trainer, _, configuration = [*model.name.split("__"), "", ""][:3]
    with refuse_damage(model / "plans.json"):
        check_plans(plans, model / "plans.json")
        check_configuration(PlansManager(plans), configuration, model / "plans.json")
    return Source(
        folder=model,
        plans=plans,
        dataset_json=dataset_json,
        configuration_name=configuration,
        trainer_name=trainer,
        mirror_axes=None,
        checkpoint="",
        checkpoints={},
    )


def _available_folds(model: Path, checkpoint: str) -> list[str]:
    folds = sorted(each.parent.name.removeprefix("fold_") for each in model.glob(f"fold_*/{checkpoint}"))
    if not folds:
        raise UserError(f"Expected folds with {checkpoint} in {model}, found none. Name another file with -chk.")
    return folds


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except FileNotFoundError as error:
        raise UserError(
            f"Expected a model folder of nnU-Net (.../TRAINER__PLANS__CONFIGURATION) with {file.name}, no {file}."
        ) from error
