"""Hands: tasks that handle events one after the other, while the broker takes what they made.

A task an event would cost more than most of what the bus does with one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition

from frond.bus.handling import Handling, Made
from frond.bus.tracker import CommitTracker

UNSENT: Final = 1000
# so many events that wait for nothing, then the heartbeats have their turn
_AT_A_STRETCH: Final = 16


class Work(NamedTuple):
    """A message, and who is told when its effects are durable."""

    partition: TopicPartition
    message: Any
    tracker: CommitTracker


class _Hand:
    __slots__ = ("lent", "partition")

    def __init__(self) -> None:
        self.partition: TopicPartition | None = None
        # its event is the broker's, and somebody else may have its place
        self.lent = False


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
        self._at_work: dict[asyncio.Task[None], _Hand] = {}
        self._again: defaultdict[TopicPartition, set[asyncio.Task[None]]] = defaultdict(set)
        self._posted: set[asyncio.Future[Any]] = set()
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
        if self._over or self.free <= -self._most or self.unsent >= 2 * UNSENT:
            return False
        self._begin(work)
        return True

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Stop what is done for partitions that are somebody else's now."""
        for task, hand in self._at_work.items():
            if hand.partition in partitions:
                task.cancel()
        for partition in partitions:
            for task in self._again.pop(partition, ()):
                task.cancel()

    def close(self) -> None:
        """Stop everything; what was posted is on its way, and nobody waits for it any more."""
        self._over = True
        for doing in self._running() | self._posted:
            doing.cancel()

    async def idle(self, within: float) -> None:
        """Wait until nothing is being handled or sent, but not longer than so many seconds."""
        end = asyncio.get_running_loop().time() + within
        while doing := self._running() | self._posted:
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                return
            await asyncio.wait(doing, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    def _running(self) -> set[asyncio.Future[Any]]:
        return {*self._at_work, *(t for tasks in self._again.values() for t in tasks)}

    def _next(self) -> Work | None:
        if self._over or self.unsent >= UNSENT:
            return None
        return self._following()

    def _soon(self) -> None:
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self.look)

    def _begin(self, work: Work) -> None:
        self.free -= 1
        hand = _Hand()
        # at once, for whoever has the partition next may come before the task
        hand.partition = work.partition
        task = asyncio.create_task(self._handle(hand, work))
        self._at_work[task] = hand
        task.add_done_callback(self._ended)

    async def _handle(self, hand: _Hand, first: Work) -> None:
        work: Work | None = first
        done = 0
        while work is not None:
            hand.partition = work.partition
            made = await self._handling.take(work.message)
            if made is None:
                work.tracker.finish(work.message.offset)
            elif not await self._post(hand, work, made):
                return
            hand.partition = None
            done += 1
            if done % _AT_A_STRETCH == 0:
                await asyncio.sleep(0)
            # less than none are free while one was squeezed in
            work = self._next() if self.free >= 0 else None

    async def _post(self, hand: _Hand, work: Work, made: Made) -> bool:
        """Leave to the broker what was made; False if somebody took the hand's place meanwhile."""
        hand.lent = True
        self.free += 1
        self.unsent += 1
        # comes to something only if the broker keeps us waiting here: its buffers are full
        self._soon()
        posted = await self._handling.post(made)
        self._posted.add(posted)
        posted.add_done_callback(partial(self._answered, work, made))
        if self.free <= 0:
            return False
        hand.lent = False
        self.free -= 1
        return True

    def _ended(self, task: asyncio.Task[None]) -> None:
        hand = self._at_work.pop(task)
        if not hand.lent:
            self.free += 1
        elif task.cancelled():
            self.unsent -= 1
        self._judge(task)
        self._soon()

    def _answered(self, work: Work, made: Made, posted: asyncio.Future[Any]) -> None:
        self._posted.discard(posted)
        error = asyncio.CancelledError() if posted.cancelled() else posted.exception()
        if error is None:
            self._handling.done(made)
            work.tracker.finish(work.message.offset)
        elif not self._over and self._mine(work):
            task = asyncio.create_task(self._send_again(work, made, error))
            self._again[work.partition].add(task)
            task.add_done_callback(partial(self._sent_again, work.partition))
            return
        self._sent()

    async def _send_again(self, work: Work, made: Made, error: BaseException) -> None:
        await self._handling.send_again(made, error)
        work.tracker.finish(work.message.offset)

    def _sent_again(self, partition: TopicPartition, task: asyncio.Task[None]) -> None:
        self._again[partition].discard(task)
        self._judge(task)
        self._sent()

    def _sent(self) -> None:
        self.unsent -= 1
        if self.unsent == UNSENT - 1:
            self._soon()

    def _judge(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken(error)
