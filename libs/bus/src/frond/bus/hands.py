"""Hands: tasks that handle events one after the other, while the broker takes what they made.

A task an event would cost more than most of what the bus does with one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition

from frond.bus.handling import Handling, Made
from frond.bus.tracker import CommitTracker

UNSENT: Final = 1000
UNSENT_BYTES: Final = 64 << 20
"""Of the messages whose results are unsent."""
_AT_A_STRETCH: Final = 16


class Work(NamedTuple):
    """A message, and who is told when its effects are durable."""

    partition: TopicPartition
    message: Any
    tracker: CommitTracker


class Hands:
    """Handles events, so many at once; of up to 1,000 besides, the broker has not yet taken what
    was made of them.

    The events that one hand handles share a context (``contextvars``).

    Args:
        hands: how many events are handled at once.
        following: the next event to handle, or None.
        mine: whether an event's partition is still ours.
        broken: called with an error that is a bug of this package.
    """

    def __init__(
        self,
        handling: Handling,
        hands: int,
        following: Callable[[], Work | None],
        mine: Callable[[Work], bool],
        broken: Callable[[BaseException], None],
    ) -> None:
        self.free = hands
        self.unsent = 0
        self._handling = handling
        self._most = hands
        self._following = following
        self._mine = mine
        self._broken = broken
        # whose event each hand has
        self._at_work: dict[asyncio.Task[None], TopicPartition | None] = {}
        self._again: defaultdict[TopicPartition, set[asyncio.Task[None]]] = defaultdict(set)
        self._dropped: set[asyncio.Task[None]] = set()
        self._unsent_bytes = 0
        self._in_hand = 0
        self._all_sent = asyncio.Event()
        self._looking = False
        self._over = False

    @property
    def in_flight(self) -> int:
        """How many events are being handled, or sent."""
        return self._most - self.free + self.unsent

    def look(self) -> None:
        """Take up as many events as there are free hands."""
        self._looking = False
        while self.free > 0 and (work := self._next()) is not None:
            self._begin(work)

    def squeeze_in(self, work: Work) -> bool:
        """Begin an event that waits for no hand; False if as many as there are hands did already."""
        if self._over or self.free <= -self._most or self._holds(2):
            return False
        self._begin(work)
        return True

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Stop what is done for partitions that are somebody else's now."""
        for task, partition in self._at_work.items():
            if partition in partitions:
                self._cancel(task)
        for partition in partitions:
            for task in self._again.pop(partition, ()):
                self._cancel(task)

    def close(self) -> None:
        """Stop everything; what was posted is on its way, and nobody waits for it any more."""
        self._over = True
        for task in self._tasks():
            self._cancel(task)

    async def idle(self, within: float) -> None:
        """Wait until nothing is being handled or, unless closed, sent; at most so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while tasks := self._tasks():
                    await asyncio.wait(tasks)
                while self.unsent and not self._over:
                    self._all_sent.clear()
                    await self._all_sent.wait()

    def _tasks(self) -> set[asyncio.Task[None]]:
        return {*self._at_work, *(t for tasks in self._again.values() for t in tasks)}

    def _cancel(self, task: asyncio.Task[None]) -> None:
        self._dropped.add(task)
        task.cancel()

    def _holds(self, times: int = 1) -> bool:
        """Whether as much is unsent as may be, or so many times as much."""
        return self.unsent >= times * UNSENT or self._unsent_bytes >= times * UNSENT_BYTES

    def _next(self) -> Work | None:
        if self._over or self._holds():
            return None
        return self._following()

    def _soon(self) -> None:
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self.look)

    def _begin(self, work: Work) -> None:
        self.free -= 1
        task = asyncio.create_task(self._handle(work))
        # at once, for whoever has the partition next may come before the task
        self._at_work[task] = work.partition
        task.add_done_callback(self._ended)

    async def _handle(self, first: Work) -> None:
        task = asyncio.current_task()
        assert task is not None
        work: Work | None = first
        alone = 0
        while work is not None:
            self._at_work[task] = work.partition
            self._in_hand += 1
            try:
                made = await self._handling.take(work.message)
            finally:
                self._in_hand -= 1
            self._at_work[task] = None
            if made is None:
                work.tracker.finish(work.message.offset)
            else:
                self.unsent += 1
                self._unsent_bytes += _size(work)
                self._handling.post(made, partial(self._answered, work, made))
            # a handler that waits for nothing would keep waiting whose event was begun before, and
            # in time the heartbeats
            alone += 1
            if self._in_hand or alone >= _AT_A_STRETCH:
                alone = 0
                await asyncio.sleep(0)
            # less than none are free while one was squeezed in
            work = self._next() if self.free >= 0 else None

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._at_work[task]
        self.free += 1
        self._judge(task)
        self._soon()

    def _answered(self, work: Work, made: Made, error: BaseException | None) -> None:
        if error is None:
            try:
                self._handling.done(made)
                work.tracker.finish(work.message.offset)
            except Exception as e:
                # the outbox tells others, too: it is not to learn of this
                self._broken(e)
        elif not self._over and self._mine(work):
            task = asyncio.create_task(self._send_again(work, made, error))
            self._again[work.partition].add(task)
            task.add_done_callback(partial(self._sent_again, work))
            return
        self._sent(work)

    async def _send_again(self, work: Work, made: Made, error: BaseException) -> None:
        await self._handling.send_again(made, error)
        work.tracker.finish(work.message.offset)

    def _sent_again(self, work: Work, task: asyncio.Task[None]) -> None:
        self._again.get(work.partition, set()).discard(task)
        self._judge(task)
        self._sent(work)

    def _sent(self, work: Work) -> None:
        held = self._holds()
        self.unsent -= 1
        self._unsent_bytes -= _size(work)
        if held and not self._holds():
            self._soon()
        if not self.unsent:
            self._all_sent.set()

    def _judge(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            # by nobody here: an error that a library let out, and the event would never be finished
            if task not in self._dropped:
                self._broken(asyncio.CancelledError("an event's handling was cancelled by nobody"))
        elif (error := task.exception()) is not None:
            self._broken(error)
        self._dropped.discard(task)


def _size(work: Work) -> int:
    return len(work.message.value or b"")
