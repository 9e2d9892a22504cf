"""The checkpoint of a run, and continuing from it."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from torch import nn

from nnunetv2_hlfd.models.checkpoints import check_finite_weights, read_checkpoint
from nnunetv2_hlfd.utilities.errors import UserError


def read_checkpoint_of_run(path: Path) -> dict[str, Any]:
    """`read_checkpoint` for a run that is to go on: where it fails, say which checkpoints beside it are whole.

    Raises:
        UserError: naming them and what to do.
    """
    try:
        content = read_checkpoint(path)
        check_finite_weights(content["network_weights"], path)
        return content
    except ValueError as error:
        raise UserError(f"{error}\n{_whole_checkpoints(path)}") from error


def _whole_checkpoints(damaged: Path) -> str:
    """Which other checkpoints of the run `--c` could continue from."""
    whole = []
    for name in ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"):  # nnU-Net's order for --c
        other = damaged.with_name(name)
        if other != damaged and other.is_file():
            with contextlib.suppress(ValueError):
                whole.append(f"{name} (after epoch {read_checkpoint(other)['current_epoch']})")
    if not whole:
        return "No other checkpoint of this run is whole: start it again without --c."
    return (
        f"Whole beside it: {', '.join(whole)}. Delete or move {damaged.name} away and run the same command with --c "
        f"again: it goes on from {whole[0].split()[0]}."
    )


def check_network_fits(trainer: nnUNetTrainer, weights: Mapping[str, Any]) -> None:
    """Compare the network of the trainer's plans with the weights, on the meta device: plans allocate nothing.

    Raises:
        RuntimeError: torch's, naming the weights that do not fit; more kinds for plans that make no network.
    """
    with torch.device("meta"):
        network = trainer.build_network_architecture(
            trainer.plans_manager,
            trainer.configuration_manager,
            determine_num_input_channels(trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json),
            trainer.label_manager.num_segmentation_heads,
            trainer.enable_deep_supervision,
        )
    network.load_state_dict(_plain(weights), assign=True)


def checkpoint_of(trainer: nnUNetTrainer, network: nn.Module) -> dict[str, Any]:
    """What nnU-Net writes into a checkpoint, but for the name of the trainer; the counterpart of `restore`.

    Args:
        trainer: initialized.
        network: the trainer's, below DDP and torch.compile.
    """
    return {
        "network_weights": network.state_dict(),
        "optimizer_state": trainer.optimizer.state_dict(),
        "grad_scaler_state": trainer.grad_scaler.state_dict() if trainer.grad_scaler is not None else None,
        "logging": trainer.logger.get_checkpoint(),
        "_best_ema": trainer._best_ema,
        "current_epoch": trainer.current_epoch + 1,
        "init_args": {**trainer.my_init_kwargs, "device": str(trainer.device)},
        "inference_allowed_mirroring_axes": trainer.inference_allowed_mirroring_axes,
    }


def restore(trainer: nnUNetTrainer, network: nn.Module, content: Mapping[str, Any]) -> None:
    """Restore weights, optimizer, logs and counters.

    nnU-Net's own loading would read the file again, without restriction.

    Args:
        trainer: initialized.
        network: the trainer's, below DDP and torch.compile.
        content: of the checkpoint.
    """
    network.load_state_dict(_plain(content["network_weights"]))
    trainer.optimizer.load_state_dict(content["optimizer_state"])
    if trainer.grad_scaler is not None and content["grad_scaler_state"] is not None:
        trainer.grad_scaler.load_state_dict(content["grad_scaler_state"])
    trainer.logger.load_checkpoint(content["logging"])
    trainer.my_init_kwargs = content["init_args"]
    trainer.current_epoch = int(content["current_epoch"])
    trainer._best_ema = None if content["_best_ema"] is None else float(content["_best_ema"])
    trainer.inference_allowed_mirroring_axes = content["inference_allowed_mirroring_axes"]


def _plain(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Without the metadata, in which torch notes `assign` for the next loading and a file could do so."""
    return dict(weights)
