"""The demo's progress bar, read from nnU-Net's output."""

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

_TICK_SECONDS = 0.5
_TICK_SECONDS_IN_LOGS = 15
_EPOCH = re.compile(r"Epoch (\d+)\s*$")
_PSEUDO_DICE = re.compile(r"Pseudo dice \[(.*)\]")
_CASE_DONE = re.compile(r"done with \S+")
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


def follow(bar: "tqdm[Any]", line: str) -> None:
    """Follow nnU-Net's output: the epoch and its pseudo Dice in training, finished cases in prediction."""
    if epoch := _EPOCH.search(line):
        bar.n = int(epoch[1])
    elif dice := _PSEUDO_DICE.search(line):
        bar.n += 1
        values = zip(("kidney", "tumor"), _NUMBER.findall(dice[1]), strict=False)
        bar.set_postfix_str("pseudo Dice: " + ", ".join(f"{label} {float(value):.2f}" for label, value in values))
    elif _CASE_DONE.search(line):
        bar.n += 1
    bar.update(0)
