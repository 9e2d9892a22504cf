"""Model folders as nnU-Net writes them, whose networks have the weights that they start with."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager


def write_model(
    folder: Path,
    plans: dict[str, Any],
    dataset_json: dict[str, Any],
    configuration: str,
    *,
    trainer: type[nnUNetTrainer] = nnUNetTrainer,
    folds: Sequence[int] = (0,),
    mirror_axes: tuple[int, ...] | None = (0, 1),
) -> Path:
    """Write plans.json, dataset.json and a checkpoint for each fold; nothing else is in the folder."""
    manager = PlansManager(plans)
    labels = manager.get_label_manager(dataset_json)
    settings = manager.get_configuration(configuration)
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    for fold in folds:
        torch.manual_seed(fold)
        network = trainer.build_network_architecture(
            manager,
            settings,
            determine_num_input_channels(manager, settings, dataset_json),
            labels.num_segmentation_heads,
            enable_deep_supervision=True,
        )
        content = {
            "network_weights": network.state_dict(),
            "trainer_name": trainer.__name__,
            "init_args": {"configuration": configuration, "fold": fold},
            "inference_allowed_mirroring_axes": mirror_axes,
        }
        (folder / f"fold_{fold}").mkdir()
        torch.save(content, folder / f"fold_{fold}/checkpoint_final.pth")
    return folder
