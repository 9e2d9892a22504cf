"""A run of a study: an ordinary nnU-Net training with its own plans name, and how far it has come."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunetv2_hlfd.models.fold import FoldFolder
from nnunetv2_hlfd.settings.settings import TEACHER_VARIABLE, Settings
from nnunetv2_hlfd.training.scheduled_trainer import ScheduledTrainer

_EPOCH = re.compile(rb"Epoch (\d+) *$", re.MULTILINE)
_TAIL_BYTES = 16_384  # of a log; an epoch writes less than 1000


@dataclass(frozen=True, kw_only=True)
class Run:
    """One fold of one model.

    Attributes:
        arm: its name in the study; a teacher's name for a teacher.
        variant: of the plans, appended to their name.
        given: settings that its plans variant holds.
        teacher: model folder of the teacher, for arms that learn from one.
        is_teacher: trained to teach, not an arm of the comparison.
        save_probabilities: in its validation.
    """

    arm: str
    trainer: type[ScheduledTrainer]
    dataset: str
    configuration: str
    plans: str
    variant: str
    fold: int
    given: Mapping[str, Any]
    teacher: Path | None = None
    is_teacher: bool = False
    save_probabilities: bool = False

    @property
    def plans_name(self) -> str:
        """Of the variant."""
        return f"{self.plans}_{self.variant}"

    @property
    def plans_file(self) -> Path:
        """Of the variant."""
        return Path(str(nnUNet_preprocessed)) / self.dataset / f"{self.plans_name}.json"

    @property
    def name(self) -> str:
        """For logs and tables."""
        return f"{self.trainer.__name__}__{self.plans_name}__fold_{self.fold}"

    @property
    def settings(self) -> Settings:
        """All settings of the training."""
        return Settings.from_dict({**self.trainer.defaults, **self.given})

    @property
    def model_folder(self) -> Path:
        """Where nnU-Net writes it."""
        return Path(get_output_folder(self.dataset, self.trainer.__name__, self.plans_name, self.configuration))

    @property
    def fold_folder(self) -> FoldFolder:
        """Where nnU-Net writes this fold."""
        return FoldFolder(self.model_folder / f"fold_{self.fold}")

    @property
    def is_finished(self) -> bool:
        """Whether it is trained and validated, with the probabilities where they are wanted."""
        probabilities = not self.save_probabilities or any(self.fold_folder.path.glob("validation/*.npz"))
        return self.fold_folder.is_validated and probabilities

    @property
    def is_trained(self) -> bool:
        """Whether no epochs remain."""
        return self.is_finished or self.fold_folder.continuation() == ["--val"]

    @property
    def epochs_done(self) -> int:
        """All once it is trained, else by the end of nnU-Net's newest log; 0 where nothing can be continued."""
        if self.is_trained:
            return self.settings.epochs
        logs = sorted(self.fold_folder.path.glob("training_log_*.txt"), key=lambda log: log.stat().st_mtime)
        if not logs or not self.fold_folder.continuation():
            return 0
        with logs[-1].open("rb") as opened:
            opened.seek(max(0, logs[-1].stat().st_size - _TAIL_BYTES))
            epochs = _EPOCH.findall(opened.read())
        return int(epochs[-1]) if epochs else 0

    @property
    def state(self) -> str:
        """In words."""
        if self.is_finished:
            return "finished"
        return {"--val": "to be validated", "--c": "interrupted"}.get("".join(self.fold_folder.continuation()), "new")

    def command(self, device: str) -> list[str]:
        """What a user would type; continues what was interrupted."""
        return [*self.start_command(device), *self.fold_folder.continuation()]

    def start_command(self, device: str) -> list[str]:
        """The command of a new start."""
        return [
            "nnUNetv2_hlfd",
            "train",
            self.dataset,
            self.configuration,
            str(self.fold),
            "-tr",
            self.trainer.__name__,
            "-p",
            self.plans_name,
            "-device",
            device,
            *(["--npz"] if self.save_probabilities else []),
        ]

    def environment(self) -> dict[str, str]:
        """What the command needs beside nnU-Net's own variables."""
        return {TEACHER_VARIABLE: str(self.teacher)} if self.teacher else {}

    def shell_line(self, device: str) -> str:
        """The command with its environment, to be copied."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.environment().items()]
        return " ".join([*assignments, shlex.join(self.command(device))])


def splits_file(dataset: str) -> Path:
    """Where nnU-Net keeps the folds of a data set; written by the first training."""
    return Path(str(nnUNet_preprocessed)) / dataset / "splits_final.json"
