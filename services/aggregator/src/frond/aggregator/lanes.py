"""Work in lanes: in order within a lane, side by side between lanes, each bounded for itself."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

Work = Callable[[], Awaitable[None]]


class Lanes:
    """A lane is a partition: its events are handled, and acknowledged, one after the other.

    Faust commits past a gap when the first offset after the committed one is missing
    (``Consumer._new_offset`` compares with ``> 1``), so within a partition acknowledgements must
    never overtake each other.

    Args:
        limit: the weight of what is queued from which on a lane is full.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queued: Counter[Any] = Counter()
        self._locks: dict[Any, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[asyncio.Task[None], float] = {}
        self._closed = False
        self.broken: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether any work is being done now."""
        return bool(self._running)

    @property
    def full(self) -> set[Any]:
        """Lanes that nothing should be read for until some of what they have is done."""
        return {lane for lane, weight in self._queued.items() if weight >= self._limit}

    def put(self, lane: Any, work: Work, weight: int = 1) -> None:
        """Queue work behind all that is in its lane, also when that is full: to wait here for one
        lane would keep from all others what is theirs.

        The work runs in a copy of the caller's context.
        """
        self._queued[lane] += weight
        lock = self._locks.setdefault(lane, asyncio.Lock())
        task = asyncio.create_task(self._run(lock, work))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, lane, weight))

    async def _run(self, lock: asyncio.Lock, work: Work) -> None:
        async with lock:
            if self._closed:
                return
            task = asyncio.current_task()
            assert task is not None
            self._running[task] = time.monotonic()
            try:
                await work()
            except Exception as e:
                # work deals with its own errors: what comes out of it is a bug, and going on in
                # the lane would acknowledge what comes after it
                self.broken = e
                self._closed = True
            except asyncio.CancelledError:
                if self._closed:
                    raise
                # by nobody here: an error that a library let out
                self.broken = RuntimeError("work was cancelled by nobody")
                self._closed = True
            finally:
                del self._running[task]

    def _ended(self, lane: Any, weight: int, task: asyncio.Task[None]) -> None:
        self._queued[lane] -= weight
        self._tasks.discard(task)

    async def idle(self) -> None:
        """Wait until nothing is queued or being done."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def drain(self, patience_s: float) -> None:
        """Start nothing more; wait for what is being done, and cancel it when time is up."""
        self._closed = True
        running = set(self._running)
        if running:
            await asyncio.wait(running, timeout=patience_s)
        rest = list(self._tasks)
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest)
