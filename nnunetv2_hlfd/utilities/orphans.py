"""Worker processes that end when the process that started them is gone, which may be killed and cannot end them."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait

_POLL_SECONDS = 1.0
_forking: int | None = None  # the process that is about to fork
_is_registered = False


def end_forks_with_this_process() -> None:
    """Let every process that is forked from now on, such as nnU-Net's that augment, end with this one.

    They block for ever where the process is gone that takes their batches. Systems without fork have none of them.
    """
    global _is_registered
    if hasattr(os, "register_at_fork") and not _is_registered:
        _is_registered = True
        os.register_at_fork(before=_remember_process, after_in_child=_end_with_forking_process)


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of new processes. They end with this process, and what waits is dropped where the block raises."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        _end_after(lambda: wait([parent.sentinel]))


def _remember_process() -> None:
    global _forking
    _forking = os.getpid()


def _end_with_forking_process() -> None:
    parent = _forking

    def wait_for_parent() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)

    _end_after(wait_for_parent)


def _end_after(wait_for_parent: Callable[[], object]) -> None:
    def end() -> None:
        wait_for_parent()
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    threading.Thread(target=end, daemon=True, name="end with parent").start()
