"""Requests to end, which by themselves leave no time to clean up: kill, the time limit of SLURM, a closed terminal."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

_NAMES = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP


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
    try:
        yield
    finally:
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


def _interrupt(number: int, _frame: object) -> NoReturn:
    raise InterruptedBySignalError(number)
