"""Requests to end, which by themselves leave no time to clean up: kill, the time limit of SLURM, a closed terminal."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

_NAMES = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
_interrupting: set[int] = set()


class InterruptedBySignalError(KeyboardInterrupt):
    """A signal that is not Ctrl-C's.

    Attributes:
        exit_code: of a program that this signal ends.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.strsignal(number))
        self.exit_code = 128 + number


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Raise `InterruptedBySignalError` in the main thread, as Ctrl-C raises KeyboardInterrupt.

    A signal that is ignored (nohup) or has another handler is left alone. Only a main thread may change handlers.
    """
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    changed = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, _interrupt)
    _interrupting.update(changed)
    try:
        yield
    finally:
        _interrupting.difference_update(changed)
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def signals_wait() -> Iterator[None]:
    """Let requests to end, Ctrl-C's too, wait for the end of the block, for this process and those that it starts.

    Not on Windows.
    """
    numbers = {getattr(signal, name) for name in ("SIGINT", *_NAMES)}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_at_once() -> None:
    """Let a forked worker end by the signals as it would without this package.

    The handler runs between two steps of Python: a worker that is about to wait for a task would wait for ever, and so
    would the pool that has ended it.
    """
    for number in _interrupting:
        signal.signal(number, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_at_once)


def _interrupt(number: int, _frame: object) -> NoReturn:
    raise InterruptedBySignalError(number)
