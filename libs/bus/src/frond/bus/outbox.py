"""Events on their way to the broker, in batches that form by themselves.

A partition has one batch on its way; what is posted meanwhile makes the next one. So an event
alone leaves at once, and under load batches grow until the broker keeps up: no lingering to choose.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from frond.bus.placing import place
from frond.contracts.envelope import Message
from frond.contracts.errors import BrokerUnavailable

BATCH_BYTES: Final = 128 << 10
_ALONE_BYTES: Final = 32 << 10

Told = Callable[[BaseException | None], None]
"""Called once: without an error when the broker has it, in order or not."""

_Item = tuple[Message, Told]


class Outbox:
    """Takes messages without waiting. Whoever posts bounds how many are on their way."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._posted: dict[str, list[_Item]] = {}
        self._queues: defaultdict[tuple[str, int], deque[_Item]] = defaultdict(deque)
        self._busy: set[tuple[str, int]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def post(self, topic: str, message: Message, told: Told) -> None:
        """Send a message; ``told`` learns what became of it."""
        posted = self._posted.get(topic)
        if posted is not None:
            posted.append((message, told))
            return
        self._posted[topic] = [(message, told)]
        self._start(self._place(topic))

    async def close(self) -> None:
        """Give up what is not sent; nobody is told."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _place(self, topic: str) -> None:
        """Queue what was posted since this task was made, by partition."""
        partitions: list[int] = []
        error: BaseException | None = None
        try:
            partitions = sorted(await self._producer.partitions_for(topic))
            if not partitions:
                raise BrokerUnavailable(f"{topic} has no partitions just now")
        except (Exception, asyncio.CancelledError) as e:
            error = self._seen(e)
        items = self._posted.pop(topic)
        if error is not None:
            _tell(items, error)
            return
        for item in items:
            which = topic, place(item[0].key, partitions, partitions)
            self._queues[which].append(item)
            if which not in self._busy:
                self._busy.add(which)
                self._start(self._send(*which))

    async def _send(self, topic: str, partition: int) -> None:
        queue = self._queues[topic, partition]
        while queue:
            taken: list[_Item] = []
            error: BaseException | None = None
            try:
                batch = self._fill(queue, taken)
                await (await self._producer.send_batch(batch, topic, partition=partition))
            except (Exception, asyncio.CancelledError) as e:
                error = self._seen(e)
            _tell(taken, error)
        self._busy.discard((topic, partition))
        del self._queues[topic, partition]

    def _fill(self, queue: deque[_Item], taken: list[_Item]) -> Any:
        batch = self._producer.create_batch()
        while queue:
            message = queue[0][0]
            # what the broker may refuse for its size takes no others with it
            large = len(message.value) > _ALONE_BYTES
            if large and taken:
                break
            taken.append(queue.popleft())
            if (
                batch.append(
                    timestamp=None, key=message.key, value=message.value, headers=message.headers
                )
                is None
            ):
                queue.appendleft(taken.pop())
                break
            if large:
                break
        batch.close()
        return batch

    def _seen(self, error: BaseException) -> BaseException:
        """An error to tell of. aiokafka lets a CancelledError of its own out during an outage; our
        own one ends the task."""
        if self._closed and isinstance(error, asyncio.CancelledError):
            raise error
        return error


def _tell(items: list[_Item], error: BaseException | None) -> None:
    for _, told in items:
        told(error)
