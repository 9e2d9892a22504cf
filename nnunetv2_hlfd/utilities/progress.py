"""A progress bar that is read from nnU-Net's output."""

import math
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

_TICK_SECONDS = 0.5
_TICK_SECONDS_IN_LOGS = 15
_EPOCH = re.compile(r"Epoch (\d+)\s*$")
_PSEUDO_DICE = re.compile(r"Pseudo dice \[(.*)\]")
_CASE_DONE = re.compile(r"done with \S+")
_MOST_LABELS = 4
_NUMBER = re.compile(r"\d\.\d+|nan")


@contextmanager
def progress_bar(total: int | None) -> "Iterator[tqdm[Any]]":
    """A bar that counts epochs or cases and whose clock runs while the child is silent."""
    counted = "{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} " if total else ""
    stop = threading.Event()
    with tqdm(
        total=total,
        bar_format=f"      {counted}[{{elapsed}}{{postfix}}]",
        miniters=0,
        file=sys.stdout,
        mininterval=_TICK_SECONDS if sys.stdout.isatty() else _TICK_SECONDS_IN_LOGS,
    ) as bar:

        def tick() -> None:
            while not stop.wait(_TICK_SECONDS):
                bar.update(0)

        ticker = threading.Thread(target=tick, daemon=True)
        ticker.start()
        try:
            yield bar
        finally:
            stop.set()
            ticker.join()


def follow(bar: "tqdm[Any]", line: str, labels: Sequence[str] = ()) -> None:
    """Follow nnU-Net's output: the epoch and its pseudo Dice in training, finished cases in prediction.

    Args:
        bar: to move.
        line: of the output.
        labels: names of the labels, in nnU-Net's order; of more than a few the mean is shown.
    """
    if epoch := _EPOCH.search(line):
        bar.n = int(epoch[1])
    elif dice := _PSEUDO_DICE.search(line):
        bar.n += 1
        bar.set_postfix_str(f"pseudo Dice: {_in_words([float(value) for value in _NUMBER.findall(dice[1])], labels)}")
    elif _CASE_DONE.search(line):
        bar.n += 1
    bar.update(0)


def _in_words(values: Sequence[float], labels: Sequence[str]) -> str:
    if len(values) > _MOST_LABELS:
        present = [value for value in values if not math.isnan(value)]
        return f"mean {sum(present) / len(present) if present else math.nan:.2f}"
    names = [f"{label} " for label in labels] if len(labels) == len(values) else [""] * len(values)
    return ", ".join(f"{name}{value:.2f}" for name, value in zip(names, values, strict=True))
