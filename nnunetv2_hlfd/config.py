"""Every setting, its default and its check.

Settings come from a trainer's class defaults and from the `hlfd` block of the plans; the environment holds facts of
the machine only (`nnUNet_hlfd_teacher`, `nnUNet_hlfd_trust_checkpoint`).
"""

import contextlib
import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

PLANS_KEY = "hlfd"
TEACHER_VARIABLE = "nnUNet_hlfd_teacher"
TRUST_VARIABLE = "nnUNet_hlfd_trust_checkpoint"

STUDENTS = ("auto", "resnet18", "resnet18_w2", "resnet18_w4", "resnet18_w8", "unet_w2", "unet_w4", "unet_w8", "plans")
RECIPES = ("paper", "nnunet")
_LEARNING_RATE = {"paper": 1e-3, "nnunet": 1e-2}
_EPOCHS = {"paper": 120, "nnunet": 1000}


def _setting(
    default: Any,
    text: str,
    kinds: tuple[type, ...],
    *,
    choices: tuple[str, ...] = (),
    texts: tuple[str, ...] = (),
    least: float | None = None,
    above: float | None = None,
) -> Any:
    """One setting: default, one line of help, the types it accepts and its limits."""
    return field(
        default=default,
        metadata={
            "text": text,
            "kinds": kinds,
            "choices": choices,
            "texts": texts,
            "least": least,
            "above": above,
        },
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one training. `lambda` is spelled `lambda_` in Python and `lambda` everywhere else."""

    teacher_fold: int | str | None = _setting(
        None, "fold of the teacher; unset: the student's own fold", (int, str, type(None)), texts=("all",), least=0
    )
    teacher_checkpoint: str = _setting("checkpoint_final.pth", "checkpoint of the teacher to learn from", (str,))
    student: str = _setting("auto", "architecture of the student", (str,), choices=STUDENTS)
    beta: float = _setting(0.9, "weight of the feature-level terms (Eq. 5)", (float,), least=0)
    lambda_: float = _setting(0.1, "weight of the pixel-level terms (Eq. 5)", (float,), least=0)
    weights: Mapping[str, float] | None = _setting(
        None, "factors on whole methods, as HLFD=1,KD=0.5; a method that is not the trainer's own is added",
        (dict, type(None)), least=0,
    )  # fmt: skip
    temperature: float = _setting(4.0, "softens the probabilities of the pixel-level terms", (float,), above=0)
    attention_exponent: float = _setting(1.0, "p in the attention maps' mean of |z|^p", (float,), least=1)
    late_max_stride: int | None = _setting(
        16, "the teacher's late stage has at most this total stride; null: the bottleneck", (int, type(None)), least=2
    )
    pixel_maps: str = _setting(
        "encoder", "the student's pixel maps: learned heads on its encoder, or its decoder's own outputs", (str,),
        choices=("encoder", "decoder"),
    )  # fmt: skip
    pixel_grid: str = _setting(
        "tap", "grid of Eq. 4: the student stage's own, or the image's (the paper's interpolation)", (str,),
        choices=("tap", "image"),
    )  # fmt: skip
    distill_ignored: bool = _setting(True, "let the pixel-level terms teach voxels with the ignore label", (bool,))
    warmup_epochs: int = _setting(0, "epochs over which the distillation weights rise linearly", (int,), least=0)
    recipe: str = _setting("paper", "paper: focal Dice, Adam, cosine; nnunet: nnU-Net's own", (str,), choices=RECIPES)
    augmentation: str = _setting(
        "nnunet", "nnU-Net's augmentation, or rotation and flips only as in the paper", (str,),
        choices=("nnunet", "paper"),
    )  # fmt: skip
    initial_lr: float | None = _setting(
        None, "initial learning rate; unset: 1e-3 (paper), 1e-2 (nnunet)", (float, type(None)), above=0
    )
    num_epochs: int | None = _setting(None, "epochs; unset: 120 (paper), 1000 (nnunet)", (int, type(None)), least=1)
    num_iterations_per_epoch: int = _setting(250, "training steps per epoch", (int,), least=1)
    num_val_iterations_per_epoch: int = _setting(50, "validation steps per epoch", (int,), least=1)
    batch_size: int | None = _setting(None, "batch size; unset: that of the plans", (int, type(None)), least=1)
    save_every: int = _setting(10, "epochs between writings of checkpoint_latest.pth", (int,), least=1)
    seed: int | None = _setting(None, "random seed; unset: drawn once and recorded", (int, type(None)), least=0)

    @property
    def learning_rate(self) -> float:
        """Initial learning rate after the recipe's default."""
        return self.initial_lr if self.initial_lr is not None else _LEARNING_RATE[self.recipe]

    @property
    def epochs(self) -> int:
        """Number of epochs after the recipe's default."""
        return self.num_epochs if self.num_epochs is not None else _EPOCHS[self.recipe]

    def to_dict(self) -> dict[str, Any]:
        """All settings under their public names."""
        return {name: getattr(self, attribute) for name, attribute in _ATTRIBUTES.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """Build settings from public names.

        Raises:
            ValueError: for an unknown name or choice (naming the nearest valid one), a wrong type or a value out of
                its limits.
        """
        checked = {}
        for name, value in values.items():
            if name not in _ATTRIBUTES:
                raise ValueError(f"Unknown setting '{name}'.{nearest(name, list(_ATTRIBUTES))}")
            checked[_ATTRIBUTES[name]] = _check(name, value, _METADATA[name])
        return cls(**checked)


_ATTRIBUTES = {each.name.rstrip("_"): each.name for each in fields(Settings)}
_METADATA: dict[str, Mapping[str, Any]] = {each.name.rstrip("_"): each.metadata for each in fields(Settings)}


def setting_help() -> dict[str, Mapping[str, Any]]:
    """Public name -> metadata (text, kinds, choices, least, above) of every setting, in order."""
    return dict(_METADATA)


def parse_value(name: str, text: str) -> Any:
    """Turn a command line's text into the value of a setting (`null` or `none` unsets it).

    Raises:
        ValueError: where the text is no value of that setting.
    """
    kinds = _METADATA[name]["kinds"]
    if type(None) in kinds and text.lower() in ("null", "none"):
        return None
    if bool in kinds and text.lower() in ("true", "false", "1", "0"):
        return text.lower() in ("true", "1")
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    if str in kinds:
        return text
    if dict in kinds:
        with contextlib.suppress(ValueError):
            return {key.strip(): float(number) for key, number in (pair.split("=") for pair in text.split(","))}
    raise ValueError(f"Expected {_expected(_METADATA[name])} for setting '{name}', got '{text}'.")


def _check(name: str, value: Any, rule: Mapping[str, Any]) -> Any:
    kinds = rule["kinds"]
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if dict in kinds and isinstance(value, Mapping):
        value = dict(value)
        wrong = not all(isinstance(key, str) and key and _is_number(each, rule) for key, each in value.items())
    else:
        wrong = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
        if not wrong and isinstance(value, int | float) and not isinstance(value, bool):
            wrong = not _is_number(value, rule)
    choices = rule["choices"]
    if not wrong and choices and value not in choices:
        raise ValueError(f"Expected {_expected(rule)} for setting '{name}', got '{value}'.{nearest(value, choices)}")
    if rule["texts"] and isinstance(value, str) and value not in rule["texts"]:
        wrong = True
    if wrong:
        raise ValueError(f"Expected {_expected(rule)} for setting '{name}', got {value!r}.")
    return value


def _is_number(value: Any, rule: Mapping[str, Any]) -> bool:
    """Whether it is a finite number within the rule's limits."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return False
    return (rule["least"] is None or value >= rule["least"]) and (rule["above"] is None or value > rule["above"])


def _expected(rule: Mapping[str, Any]) -> str:
    """What a setting accepts, in words."""
    if rule["choices"]:
        return "one of " + ", ".join(rule["choices"])
    words: dict[type, str] = {
        dict: "METHOD=FACTOR,... with numbers",
        int: "an integer",
        float: "a number",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    words[str] = " or ".join(f"'{each}'" for each in rule["texts"]) or words[str]
    expected = " or ".join(words[kind] for kind in rule["kinds"])
    if rule["least"] is not None:
        expected += f" of at least {rule['least']}"
    if rule["above"] is not None:
        expected += f" above {rule['above']}"
    return expected


def nearest(name: str, valid: "tuple[str, ...] | list[str]") -> str:
    """' Did you mean ...?' with the nearest valid name, else the list of all."""
    close = difflib.get_close_matches(name, valid, n=1)
    return f" Did you mean '{close[0]}'?" if close else f" Valid are: {', '.join(valid)}."


def given_settings(plans: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the `hlfd` block of the plans gives explicitly.

    Raises:
        ValueError: for a malformed block.
    """
    block = plans.get(PLANS_KEY, {}) if isinstance(plans, Mapping) else None
    settings = block.get("settings", {}) if isinstance(block, Mapping) else None
    if not isinstance(settings, Mapping):
        raise ValueError(
            f'Expected the plans\' \'{PLANS_KEY}\' block to be {{"base_plans": NAME, "settings": {{...}}}}, got '
            f"{block!r}. Write one with: nnUNetv2_hlfd plan"
        )
    return dict(settings)


def teacher_folder_from_environment() -> Path | None:
    """Model folder of the teacher named by the environment, if any."""
    value = os.environ.get(TEACHER_VARIABLE)
    return Path(value) if value else None


def trust_checkpoints() -> bool:
    """Whether the user has opted in to loading legacy checkpoints, which can run code."""
    return os.environ.get(TRUST_VARIABLE, "").lower() in ("1", "true", "t")
