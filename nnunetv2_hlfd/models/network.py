"""The network of a checkpoint, built as nnU-Net builds it and without running code from the file."""

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn

from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage


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
        UserError: for a trainer that is not found, plans that no network fits, or weights that do not fit it.
    """
    try:
        trainer = recursive_find_trainer_class_by_name(str(checkpoint["trainer_name"]))
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"The network in {file} was trained by {checkpoint['trainer_name']}, which nnU-Net does not find. Name the "
            f"folder of that trainer in the environment variable nnUNet_extTrainer."
        ) from error
    if "plans_manager" not in inspect.signature(trainer.build_network_architecture).parameters:
        raise UserError(
            f"The trainer {checkpoint['trainer_name']} of {file} builds its network by the signature of nnU-Net before "
            f"2.7. Expected build_network_architecture(plans_manager, configuration_manager, num_input_channels, "
            f"num_output_channels, enable_deep_supervision)."
        )
    from_plans = trainer.build_network_architecture is nnUNetTrainer.build_network_architecture
    place = torch.device("meta") if from_plans else nullcontext()
    with refuse_damage(f"The plans.json or dataset.json of {file}"), place:
        network = trainer.build_network_architecture(
            plans,
            configuration,
            determine_num_input_channels(plans, configuration, dataset_json),
            plans.get_label_manager(dataset_json).num_segmentation_heads,
            enable_deep_supervision=deep_supervision,
        )
    try:
        network.load_state_dict(checkpoint["network_weights"], assign=from_plans)
        network.float()
    except Exception as error:
        raise UserError(
            f"The weights in {file} do not fit the network of its plans.json: {_first_culprit(error)}"
        ) from error
    if not deep_supervision and not from_plans:
        network.register_forward_hook(_keep_full_resolution)
    return network.eval().requires_grad_(False)


def _keep_full_resolution(_network: nn.Module, _inputs: Any, outputs: Any) -> Tensor:
    return outputs[0] if isinstance(outputs, list | tuple) else outputs


def _first_culprit(error: Exception) -> str:
    """The first weight that does not fit; the line before only says that one does not."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[1][:300] if len(lines) > 1 else str(error)
