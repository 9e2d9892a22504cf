"""The maps of a teacher that runs of a study learn from: `nnUNetv2_hlfd teach` before their trainings."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_hlfd.distillation.combined import method_classes
from nnunetv2_hlfd.distillation.method import FINAL
from nnunetv2_hlfd.distillation.registry import PREFIX
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.study.runs import Run
from nnunetv2_hlfd.training.taught_trainer import TaughtTrainer


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """Maps of one fold of a teacher, stored for the runs of an arm (of any seed), or for all that need the final map.

    It is always started where one of its runs waits: the command finds out by itself what is missing.

    Attributes:
        runs: that learn from the maps.
        trainer: whose needs are stored beside the final map; empty for none.
    """

    runs: tuple[Run, ...]
    trainer: str = ""

    @property
    def name(self) -> str:
        """For logs and tables."""
        return f"teach__{self.runs[0].name}"

    @property
    def arm(self) -> str:
        """For tables."""
        return "teach"

    @property
    def dataset(self) -> str:
        """Of its runs."""
        return self.runs[0].dataset

    @property
    def fold(self) -> int:
        """Of the teacher and its students."""
        return self.runs[0].fold

    @property
    def teacher(self) -> Path | None:
        """Model folder of the teacher."""
        return self.runs[0].teacher

    @property
    def settings(self) -> Settings:
        """Of one of its runs."""
        return self.runs[0].settings

    @property
    def is_finished(self) -> bool:
        """Whether nobody needs the maps any more."""
        return all(run.is_trained for run in self.runs)

    def command(self, device: str) -> list[str]:
        """What a user would type; the command finds out by itself where to go on."""
        return self.start_command(device)

    def start_command(self, device: str) -> list[str]:
        """The same."""
        first = self.runs[0]
        names = [first.dataset, first.configuration, str(first.fold), "-p", first.plans_name, "-device", device]
        return ["nnUNetv2_hlfd", "teach", *names, *(["--needs_of", self.trainer] if self.trainer else [])]

    def environment(self) -> dict[str, str]:
        """What the command needs beside nnU-Net's own variables."""
        return self.runs[0].environment()

    def shell_line(self, device: str) -> str:
        """The command with its environment, to be copied."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.environment().items()]
        return " ".join([*assignments, shlex.join(self.command(device))])


Job = Run | Teaching  # what a study starts


def find_teachings(runs: Sequence[Run]) -> list[Teaching]:
    """What is to be stored for runs with stored maps, in the order of the runs."""
    groups: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        if issubclass(run.trainer, TaughtTrainer) and run.settings.teacher_maps == "stored":
            arm = run.arm if _asks_for_more(run) else ""
            groups.setdefault((run.teacher, run.fold, arm), []).append(run)
    return [
        Teaching(runs=tuple(members), trainer=members[0].trainer.__name__ if arm else "")
        for (_, _, arm), members in groups.items()
    ]


def _asks_for_more(run: Run) -> bool:
    """Whether it needs more of a teacher than the final map."""
    assert issubclass(run.trainer, TaughtTrainer)
    name = run.trainer.__name__.removeprefix(PREFIX)
    methods = method_classes(name, run.trainer.method_class, run.settings)
    return any(method.needs - {FINAL} for method in methods.values())
