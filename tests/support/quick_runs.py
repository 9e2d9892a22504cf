"""Runs of a study whose trainings write what nnU-Net's would, and nothing else, in a moment."""

from dataclasses import dataclass, fields
from pathlib import Path

from nnunetv2_hlfd.study.runs import Run

# FOLD CONTROL [--c]: the control folder says what happens to this training. "failing": exit code 3. "stuck": it comes
# no further. "waiting": it waits for the end of that file, and writes nothing more until then.
_TRAINING = """
fold=$1 control=$2
echo "training with: $3"
mkdir -p "$fold/validation"
[ -e "$control/stuck" ] || date > "$fold/checkpoint_latest.pth"
touch "$control/begun"
tries=0
while [ -e "$control/waiting" ] && [ $tries -lt 1200 ]; do sleep 0.05; tries=$((tries + 1)); done
if [ -e "$control/failing" ]; then echo "out of luck"; exit 3; fi
mv "$fold/checkpoint_latest.pth" "$fold/checkpoint_final.pth"
echo "{}" > "$fold/validation/summary.json"
"""


@dataclass(frozen=True, kw_only=True)
class QuickRun(Run):
    """A run whose command is a few lines of shell."""

    control: Path

    def start_command(self, device: str) -> list[str]:
        return ["sh", str(self.control.parent / "training.sh"), str(self.fold_folder.path), str(self.control)]


def quick(runs: list[Run], folder: Path) -> list[QuickRun]:
    """The same runs; each is controlled by a folder with the name of its arm."""
    folder.mkdir(exist_ok=True)
    (folder / "training.sh").write_text(_TRAINING)
    made = []
    for run in runs:
        control = folder / run.arm
        control.mkdir(exist_ok=True)
        made.append(QuickRun(**{field.name: getattr(run, field.name) for field in fields(Run)}, control=control))
    return made
