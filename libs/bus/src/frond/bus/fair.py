"""Turns between jobs: who has ten images is not made to wait for who has a hundred thousand."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items of many jobs, handed out one of each job in turn, in order within a job.

    A job's k-th item is handed out after at most k times as many others as there are jobs that are
    not held back. Nothing is lost, nothing comes twice; every operation but ``drop`` costs the same
    however much is queued.
    """

    def __init__(self) -> None:
        # in the order of their turns; no job is here without an item
        self._jobs: OrderedDict[str, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def jobs(self) -> int:
        """How many jobs have something queued."""
        return len(self._jobs)

    def push(self, job: str, item: T) -> None:
        """Queue an item behind those of its job; a job that had none has its turn last."""
        self._jobs.setdefault(job, deque()).append(item)
        self._count += 1

    def pop(self, held: Callable[[str], bool] = lambda _: False) -> T | None:
        """The next item of the job whose turn it is; None when all that have any are held back.

        Args:
            held: a job that is held back keeps its turn.
        """
        for job, items in self._jobs.items():
            if not held(job):
                item = items.popleft()
                self._count -= 1
                if items:
                    self._jobs.move_to_end(job)
                else:
                    del self._jobs[job]
                return item
        return None

    def drop(self, gone: Callable[[T], bool]) -> int:
        """Remove the items for which ``gone`` is true; returns how many those were."""
        before = self._count
        for job, items in list(self._jobs.items()):
            kept = deque(item for item in items if not gone(item))
            self._count -= len(items) - len(kept)
            if kept:
                self._jobs[job] = kept
            else:
                del self._jobs[job]
        return before - self._count
