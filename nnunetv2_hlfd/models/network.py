"""The network of a checkpoint, built as nnU-Net builds it and without running code from the file."""

import inspect
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from nnunetv2_hlfd.models.checkpoints import check_finite_weights, wrapper_hint
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage

_FORM = (
    "build_network_architecture(plans_manager, configuration_manager, num_input_channels, num_output_channels, "
    "enable_deep_supervision)"
)


def restore_network(
    checkpoint: Mapping[str, Any],
    plans: PlansManager,
    configuration: Any,
    dataset_json: Mapping[str, Any],
    file: Path,
    *,
    deep_supervision: bool,
) -> nn.Module:
    """Build the network as nnU-Net's predictor does, with deep supervision or without, and freeze it.

    A network that nnU-Net builds from plans takes the checkpoint's own tensors: what the plans say allocates nothing.
    One that a trainer of its own builds may have no deep supervision, or none that can be switched off; without deep
    supervision it returns the logits in full resolution alone, whatever it is made of.

    Raises:
        UserError: for a trainer that is not found or cannot be called, plans that no network fits, weights that do
            not fit it, or that are not finite.
    """
    check_finite_weights(checkpoint["network_weights"], file)
    trainer = _find_trainer(str(checkpoint["trainer_name"]), file)
    from_plans = trainer.build_network_architecture is nnUNetTrainer.build_network_architecture
    place = torch.device("meta") if from_plans else nullcontext()
    with refuse_damage(f"The plans.json or dataset.json of {file}"), place:
        network = _build(
            trainer,
            plans,
            configuration,
            determine_num_input_channels(plans, configuration, dataset_json),
            plans.get_label_manager(dataset_json).num_segmentation_heads,
            deep_supervision=deep_supervision,
        )
    try:
        network.load_state_dict(checkpoint["network_weights"], assign=from_plans)
        network.float()
    except Exception as error:
        raise UserError(
            f"The weights in {file} do not fit the network of its plans.json: {_first_culprit(error)}"
            f"{wrapper_hint(checkpoint['network_weights'])}"
        ) from error
    if not deep_supervision and not from_plans:
        network.register_forward_hook(_keep_full_resolution)
    return network.eval().requires_grad_(False)


def _find_trainer(name: str, file: Path) -> type[nnUNetTrainer]:
    try:
        return recursive_find_trainer_class_by_name(name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"The network in {file} was trained by {name}, which nnU-Net does not find. Name the folder of that "
            f"trainer in the environment variable nnUNet_extTrainer (`nnUNetv2_hlfd trainers_path` prints that of this "
            f"package's trainers)."
        ) from error
    except ImportError as error:  # nnU-Net imports every module on its way
        raise UserError(
            f"The network in {file} was trained by {name}. Looking for it, nnU-Net could not import a module of the "
            f"folders in nnUNet_extTrainer ({os.environ.get('nnUNet_extTrainer', '')}): {error}. Install what is "
            f"missing, or take that folder out of the variable."
        ) from error


def _build(
    trainer: type[nnUNetTrainer],
    plans: PlansManager,
    configuration: ConfigurationManager,
    num_input_channels: int,
    num_output_channels: int,
    *,
    deep_supervision: bool,
) -> nn.Module:
    """Build by the trainer's `build_network_architecture`, in its form since nnU-Net 2.7 or before.

    Raises:
        UserError: for a trainer of another form, or one that fails.
    """
    build: Callable[..., nn.Module] = trainer.build_network_architecture
    signature = inspect.signature(build)
    described: tuple[Any, ...] = (plans, configuration)
    if "plans_manager" not in signature.parameters:
        warnings.warn(
            f"{trainer.__name__} builds its network by the form before nnU-Net 2.7, which nnU-Net will no longer call "
            f"one day. Expected {_FORM}.",
            DeprecationWarning,
            stacklevel=4,
        )
        described = (
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
        )
    try:
        return build(*described, num_input_channels, num_output_channels, enable_deep_supervision=deep_supervision)
    except Exception as error:
        if build is nnUNetTrainer.build_network_architecture:
            raise
        raise UserError(
            f"{trainer.__name__} could not build its network by its build_network_architecture{signature}: "
            f"{type(error).__name__}: {str(error)[:300]}. nnU-Net calls {_FORM}."
        ) from error


def _keep_full_resolution(_network: nn.Module, _inputs: Any, outputs: Any) -> Tensor:
    return outputs[0] if isinstance(outputs, list | tuple) else outputs


def _first_culprit(error: Exception) -> str:
    """The first weight that does not fit; the line before only says that one does not."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[1][:300] if len(lines) > 1 else str(error)
