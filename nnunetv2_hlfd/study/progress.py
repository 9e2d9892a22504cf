"""How far the runs of a study are: one bar over the epochs of all, or plain lines where nobody watches."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from nnunetv2_hlfd.study.runs import Run

_LINE_SECONDS = 600


class Progress:
    """A bar on a terminal; elsewhere a line for every event, and now and then one in between."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self._start, self._line = time.monotonic(), time.monotonic()
        self._first = self._done = sum(run.epochs_done for run in runs)
        self._total = sum(run.settings.epochs for run in runs)
        self._bar: tqdm[Any] | None = None
        if sys.stdout.isatty():
            self._bar = tqdm(total=self._total, initial=self._first, unit="epoch", smoothing=0, file=sys.stdout)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def say(self, text: str) -> None:
        """Tell an event."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        else:
            print(text, flush=True)

    def update(self, running: int, waiting: int, failed: int) -> None:
        """Show where the runs are now."""
        self._done = sum(run.epochs_done for run in self.runs)
        finished = sum(run.is_finished for run in self.runs)
        runs = f"runs: {finished} finished, {running} running, {waiting} waiting, {failed} failed"
        if self._bar is not None:
            self._bar.set_postfix_str(runs, refresh=False)
            self._bar.update(self._done - self._bar.n)
            self._bar.refresh()
        elif time.monotonic() - self._line > _LINE_SECONDS:
            self._line = time.monotonic()
            print(f"{self._done} of {self._total} epochs, {runs}{self._remaining()}", flush=True)

    def _remaining(self) -> str:
        """Time that the rest takes at the mean pace since the start."""
        made = self._done - self._first
        if made <= 0:
            return ""
        seconds = (time.monotonic() - self._start) / made * (self._total - self._done)
        return f", about {tqdm.format_interval(seconds)} left"
