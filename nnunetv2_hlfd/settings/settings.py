"""Every setting, its default and its check.

Settings come from a trainer's class defaults and from the `hlfd` block of the plans; the environment holds facts of
the machine only (`nnUNet_hlfd_teacher`, `nnUNet_hlfd_trust_checkpoint`, `nnUNet_hlfd_trust_imports`).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.networks.students import CHOICES as STUDENT_CHOICES
from nnunetv2_hlfd.settings.rules import Rule, nearest
from nnunetv2_hlfd.utilities.errors import UserError

PLANS_KEY = "hlfd"
TEACHER_VARIABLE = "nnUNet_hlfd_teacher"
TRUST_VARIABLE = "nnUNet_hlfd_trust_checkpoint"
TRUST_IMPORTS_VARIABLE = "nnUNet_hlfd_trust_imports"
OVERWRITE_VARIABLE = "nnUNet_hlfd_overwrite"

RECIPES = ("paper", "nnunet")
_LEARNING_RATE = {"paper": 1e-3, "nnunet": 1e-2}
_EPOCHS = {"paper": 120, "nnunet": 1000}
_RULE = "rule"  # of a field's metadata


def setting(default: Any, text: str, kinds: tuple[type, ...], **limits: Any) -> Any:
    """Make a field of `Settings` with its default and its rule.

    Args:
        default: of the setting.
        text: see `Rule`.
        kinds: see `Rule`.
        limits: the rest of the `Rule`.
    """
    return field(default=default, metadata={_RULE: Rule(text=text, kinds=kinds, **limits)})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one training. `lambda` is spelled `lambda_` in Python and `lambda` everywhere else."""

    teacher_fold: int | str | None = setting(
        None, "fold of the teacher; unset: the student's own fold", (int, str, type(None)), texts=("all",), least=0
    )
    teacher_checkpoint: str = setting("checkpoint_final.pth", "checkpoint of the teacher to learn from", (str,))
    teacher_maps: str = setting(
        "live",
        "live: the teacher runs in every step; stored: nnUNetv2_hlfd teach has stored the maps of the student's own "
        "teacher; crossfit: or, for each case, those of the fold that held it out",
        (str,),
        choices=("live", "stored", "crossfit"),
    )
    previous_stage: str | None = setting(
        None,
        "cascade: folder name of the previous stage's model; unset: the one of the same trainer and plans",
        (str, type(None)),
        form="TRAINER__PLANS__CONFIGURATION",
    )
    student: str = setting("auto", "architecture of the student", (str,), choices=STUDENT_CHOICES)
    beta: float = setting(0.9, "weight of the feature-level terms (Eq. 5)", (float,), least=0)
    lambda_: float = setting(0.1, "weight of the pixel-level terms (Eq. 5)", (float,), least=0)
    weights: Mapping[str, float] | None = setting(
        None,
        "factors on methods or single terms, such as KD=0.5,ifd=0; methods other than the trainer's own are added",
        (dict, type(None)),
        least=0,
    )
    source_ratio: bool = setting(
        True,
        "true: the terms of baselines keep the ratio to the segmentation loss that they have in their source; false: "
        "they keep the source's weights, whatever the segmentation loss is",
        (bool,),
    )
    teacher_share: float = setting(
        0.5, "SoftLabel: share of the teacher's map in the segmentation loss", (float,), least=0, most=1
    )
    soft_dice_share: float = setting(
        0.5, "SoftLabel: share of soft Dice in the soft-label loss", (float,), least=0, most=1
    )
    balance: str = setting(
        "none",
        "limit the gradients of the terms by that of the segmentation loss: cap their norms, gate them by their cosine "
        "with it, or project out the part that opposes it",
        (str,),
        choices=("none", "cap", "gate", "project"),
    )
    balance_ratio: float = setting(
        0.3, "balance: largest norm of a term's gradient, relative to the segmentation loss's", (float,), above=0
    )
    teach_every: int = setting(1, "the teacher teaches in every k-th step only", (int,), least=1)
    temperature: float = setting(4.0, "softens the probabilities of the pixel-level terms", (float,), above=0)
    attention_exponent: float = setting(1.0, "p in the attention maps' mean of |z|^p", (float,), least=1)
    late_max_stride: int | None = setting(
        16, "the teacher's late stage has at most this total stride; null: the bottleneck", (int, type(None)), least=2
    )
    teacher_features: str = setting(
        "encoder",
        "HLFD's feature terms: attention maps of the teacher's encoder, or of its decoder on the same grids",
        (str,),
        choices=("encoder", "decoder"),
    )
    pixel_maps: str = setting(
        "encoder",
        "the student's pixel maps: heads on its encoder, its decoder's intermediate outputs, or all of its outputs",
        (str,),
        choices=("encoder", "decoder", "outputs"),
    )
    pixel_loss: str = setting(
        "kl", "HLFD's pixel terms: KL divergence, or the soft-label loss of SoftLabel", (str,), choices=("kl", "soft")
    )
    voxel_weights: str = setting(
        "uniform",
        "KL divergences: all voxels have the same weight, or all classes (mean of class means)",
        (str,),
        choices=("uniform", "class"),
    )
    pixel_grid: str = setting(
        "tap",
        "grid of Eq. 4: the student stage's own, or the image's (the paper's interpolation)",
        (str,),
        choices=("tap", "image"),
    )
    distill_ignored: bool = setting(True, "the pixel-level terms also teach voxels with the ignore label", (bool,))
    warmup_epochs: int = setting(0, "epochs over which the distillation weights rise linearly", (int,), least=0)
    distill_until: float | None = setting(
        None,
        "share of the training after which the terms have faded to 0; unset: they do not fade",
        (float, type(None)),
        above=0,
        most=1,
    )
    distill_decay: str = setting("linear", "how the terms fade", (str,), choices=("linear", "cosine"))
    initial_weights: str = setting(
        "random",
        "random weights, or every d-th channel of the teacher's (students unet_w2, unet_w4, unet_w8, plans)",
        (str,),
        choices=("random", "teacher"),
    )
    mirroring: str = setting(
        "teacher",
        "axes mirrored in training and prediction: the teacher's (without one, nnU-Net's), nnU-Net's, or none",
        (str,),
        choices=("teacher", "nnunet", "none"),
    )
    recipe: str = setting("paper", "paper: focal Dice, Adam, cosine; nnunet: nnU-Net's own", (str,), choices=RECIPES)
    augmentation: str = setting(
        "nnunet",
        "nnU-Net's augmentation, or rotation and flips only as in the paper",
        (str,),
        choices=("nnunet", "paper"),
    )
    initial_lr: float | None = setting(
        None, "initial learning rate; unset: 1e-3 (paper), 1e-2 (nnunet)", (float, type(None)), above=0
    )
    num_epochs: int | None = setting(
        None, "number of epochs; unset: 120 (paper), 1000 (nnunet)", (int, type(None)), least=1
    )
    num_iterations_per_epoch: int = setting(250, "training steps per epoch", (int,), least=1)
    num_val_iterations_per_epoch: int = setting(50, "validation steps per epoch", (int,), least=1)
    batch_size: int | None = setting(None, "batch size; unset: as in the plans", (int, type(None)), least=1)
    save_every: int = setting(10, "checkpoint_latest.pth is written after every so many epochs", (int,), least=1)
    seed: int | None = setting(None, "random seed; unset: drawn once and recorded", (int, type(None)), least=0)

    @property
    def learning_rate(self) -> float:
        """Initial learning rate after the recipe's default."""
        return self.initial_lr if self.initial_lr is not None else _LEARNING_RATE[self.recipe]

    @property
    def epochs(self) -> int:
        """Number of epochs after the recipe's default."""
        return self.num_epochs if self.num_epochs is not None else _EPOCHS[self.recipe]

    def to_dict(self) -> dict[str, Any]:
        """Return all settings under their public names."""
        return {name: getattr(self, attribute) for name, attribute in _ATTRIBUTES.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """Build settings from public names.

        Raises:
            UserError: for an unknown name or choice (naming the nearest valid one), a wrong type or a value out of
                its limits.
        """
        checked = {}
        for name, value in values.items():
            if name not in _ATTRIBUTES:
                raise UserError(f"Unknown setting '{name}'.{nearest(name, list(_ATTRIBUTES))}")
            checked[_ATTRIBUTES[name]] = RULES[name].check(name, value)
        return cls(**checked)


_ATTRIBUTES = {attribute.name.rstrip("_"): attribute.name for attribute in fields(Settings)}
RULES: Mapping[str, Rule] = {attribute.name.rstrip("_"): attribute.metadata[_RULE] for attribute in fields(Settings)}


def given_settings(plans: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the `hlfd` block of the plans gives explicitly.

    Raises:
        UserError: for a malformed block.
    """
    block = plans.get(PLANS_KEY, {}) if isinstance(plans, Mapping) else None
    settings = block.get("settings", {}) if isinstance(block, Mapping) else None
    if not isinstance(settings, Mapping):
        raise UserError(
            f'Expected the plans\' \'{PLANS_KEY}\' block to be {{"base_plans": NAME, "settings": {{...}}}}, got '
            f"{block!r}. Write one with: nnUNetv2_hlfd plan"
        )
    return dict(settings)


def teacher_folders_from_environment() -> list[Path]:
    """Return the model folders that the environment names; several teach together.

    What exists as it is written is one folder, whatever its path holds; else several are separated as those of PATH.
    """
    named = os.environ.get(TEACHER_VARIABLE, "")
    if named and Path(named).exists():
        return [Path(named)]
    return [Path(folder) for folder in named.strip().split(os.pathsep) if folder]


def trust_checkpoints() -> bool:
    """Return whether the user has opted in to loading legacy checkpoints, which can run code."""
    return _is_set(TRUST_VARIABLE)


def trusted_imports() -> list[str]:
    """Return the packages whose classes plans may name as networks, although importing them runs their code."""
    return [name.strip() for name in os.environ.get(TRUST_IMPORTS_VARIABLE, "").split(",") if name.strip()]


def overwrite_runs() -> bool:
    """Return whether a run may replace an earlier one with other settings: nnUNetv2_hlfd train ... --overwrite."""
    return _is_set(OVERWRITE_VARIABLE)


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "t")
