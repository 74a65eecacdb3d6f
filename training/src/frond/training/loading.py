"""Batches in the order of their steps, made ahead by forked processes.

A thread would hold the interpreter's lock against the training loop. A fork shares the data, and
comes before torch starts threads of its own.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import queue
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from numpy.typing import NDArray

from frond.training.config import TrainingFailed

Arrays = tuple[NDArray[Any], ...]
Make = Callable[[int, int], Arrays]

_AHEAD: Final = 6
_LOOK_S: Final = 5.0
# prctl(2): PR_SET_PDEATHSIG
_DEATH_SIGNAL: Final = 1


@contextmanager
def batches(
    make: Make, seed: int, start: int, steps: int, processes: int
) -> Iterator[Iterator[Arrays]]:
    """``make(seed, step)`` for each step from ``start`` on; ``processes`` 0: made when asked for.

    Raises:
        TrainingFailed: a batch could not be made, or its process died; with what it said.
    """
    if processes == 0:
        yield (make(seed, step) for step in range(start, steps))
        return
    context = multiprocessing.get_context("fork")
    parent = os.getpid()
    queues = [context.Queue(maxsize=max(2, _AHEAD // processes)) for _ in range(processes)]
    workers = [
        context.Process(
            target=_work, args=(make, seed, range(start + k, steps, processes), q, parent),
            daemon=True,
        )
        for k, q in enumerate(queues)
    ]  # fmt: skip
    for worker in workers:
        worker.start()

    def made() -> Iterator[Arrays]:
        for step in range(start, steps):
            k = (step - start) % processes
            yield _taken(queues[k], workers[k])

    try:
        yield made()
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join()


def _work(make: Make, seed: int, steps: range, ready: Any, parent: int) -> None:
    _die_with(parent)
    for step in steps:
        try:
            ready.put(make(seed, step))
        except Exception:
            ready.put(traceback.format_exc())
            return


def _die_with(parent: int) -> None:
    """A parent that is killed outright ends nobody, and whoever waits for it waits for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _taken(ready: Any, worker: Any) -> Arrays:
    while True:
        try:
            told = ready.get(timeout=_LOOK_S)
        except queue.Empty:
            if worker.is_alive():
                continue
            try:
                told = ready.get(timeout=_LOOK_S)
            except queue.Empty:
                raise TrainingFailed(
                    f"The process that makes batches died (exit code {worker.exitcode})."
                ) from None
        if isinstance(told, str):
            raise TrainingFailed(f"A batch could not be made:\n{told}")
        return tuple(told)
