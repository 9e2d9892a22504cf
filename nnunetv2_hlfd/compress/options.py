"""What is to be compressed, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.deploy.provenance import Licenses
from nnunetv2_hlfd.models.fold import FINAL
from nnunetv2_hlfd.report.verdict import MARGIN
from nnunetv2_hlfd.settings.rules import Rule
from nnunetv2_hlfd.settings.settings import RULES, Settings
from nnunetv2_hlfd.utilities.errors import UserError

STEPS = 30_000
_STEPS_PER_EPOCH, _LEAST_EPOCHS = 250, 10
_OWN = ("student", "teacher_maps", "num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch", "seed")
_HELD_OUT = Rule(text="share of the images", kinds=(float,), above=0, most=0.5)


@dataclass(frozen=True, kw_only=True)
class CompressOptions:
    """One compression.

    Attributes:
        model: The teacher's model folder, a zip of nnUNetv2_export_model_to_zip, the name or number of a data set in
            nnUNet_results, or the path of a model there.
        images: Folder with CASE_0000 images.
        output: Folder to work in.
        labels: Folder with the true label maps of all or some of the images.
        trainer: Of the teacher, where `model` holds several models.
        plans: Name of its plans, likewise.
        configuration: Of it, likewise.
        folds: Of the teacher, which predict together; unset: all that are trained.
        checkpoint: File in the folder of a fold.
        student: Name of the student, or `auto`.
        spacing: Of the student in mm, coarser than the teacher's: one number, which no axis is finer than, or one for
            each axis of plans.json. Unset: the teacher's.
        steps: Of the training.
        seed: Of the training.
        settings: Other settings of the training.
        held_out: Share of the images that the comparison is made on, or a file with their names.
        device: cpu, cuda or mps.
        mirroring: Whether the teacher predicts with test-time mirroring, where it allows it.
        control: Whether to train the same student on the teacher's label maps alone as well.
        max_dice_drop: What 8 bits may cost.
        margin: Of non-inferiority to the teacher against the truth, in Dice; to be chosen before the results are seen.
        licenses: For the model cards.
    """

    model: Path
    images: Path
    output: Path
    labels: Path | None = None
    trainer: str | None = None
    plans: str | None = None
    configuration: str | None = None
    folds: Sequence[str] | None = None
    checkpoint: str = FINAL
    student: str = "auto"
    spacing: Sequence[float] | None = None
    steps: int = STEPS
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    held_out: float | Path = 0.2
    device: str = "cuda"
    mirroring: bool = True
    control: bool = False
    max_dice_drop: float = 0.01
    margin: float = MARGIN
    licenses: Licenses = field(default_factory=Licenses)

    def __post_init__(self) -> None:
        """Refuse values that no step could use.

        Raises:
            UserError: naming the value.
        """
        if self.steps < 1:
            raise UserError(f"Expected at least 1 step for -steps, got {self.steps}.")
        if not 0 <= self.margin < 1:
            raise UserError(f"Expected a --margin from 0 to below 1, got {self.margin}.")
        if own := sorted(set(self.settings) & set(_OWN)):
            raise UserError(f"The setting {own[0]} is chosen by compress. Use -student, -steps or -seed.")
        if self.spacing is not None and self.settings.get("initial_weights") == "teacher":
            raise UserError("A student with a -spacing of its own cannot start with the teacher's weights.")
        if not isinstance(self.held_out, Path):
            _HELD_OUT.check("-held_out", self.held_out)
        Settings.from_dict({**self.settings, "student": self.student, "seed": self.seed})

    @property
    def epochs(self) -> int:
        """Epochs of the training: of nnU-Net's 250 steps, shorter ones where there would be few."""
        return max(round(self.steps / _STEPS_PER_EPOCH), min(self.steps, _LEAST_EPOCHS))

    @property
    def schedule(self) -> dict[str, int]:
        """Settings of the training's length."""
        per_epoch = -(-self.steps // self.epochs)
        return {
            "num_epochs": self.epochs,
            "num_iterations_per_epoch": per_epoch,
            "num_val_iterations_per_epoch": -(-per_epoch // 5),  # nnU-Net's share
            "save_every": 1,
        }


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE from the command line.

    Raises:
        UserError: for another form, an unknown setting or a bad value.
    """
    settings = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UserError(f"Expected NAME=VALUE for -settings, got '{word}'.")
        if name not in RULES:
            Settings.from_dict({name: text})  # names the nearest setting
        settings[name] = RULES[name].parse(name, text)
    return settings
