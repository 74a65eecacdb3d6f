"""The consumer loop when a rebalance falls into a read: what aiokafka counts as read is read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from frond.bus.consumer import _Loop, _Rebalance
from frond.contracts import topics

PARTITION = TopicPartition(topics.COMPLETED.name, 6)


class Consumer:
    """As much of AIOKafkaConsumer as the loop calls: it hands a message out once, and commits."""

    def __init__(self) -> None:
        self.at = 0
        self.committed = 0
        self.listener: Any = None
        self.rebalances = 1
        self.tells = True

    async def getmany(self, *partitions: TopicPartition, **_: Any) -> Any:
        if self.rebalances:
            self.rebalances -= 1
            # the first message was handed out before, and its offset could not be committed
            await self.listener.on_partitions_revoked([PARTITION])
            self.at = self.committed
            if self.tells:
                await self.listener.on_partitions_assigned([PARTITION])
        if self.at or PARTITION not in partitions:
            return {}
        self.at = 1
        message = SimpleNamespace(partition=6, offset=0, key=b"", headers=(), value=b"{}")
        return {PARTITION: [message]}

    async def position(self, partition: TopicPartition) -> int:
        assert partition == PARTITION
        return self.at

    def seek(self, partition: TopicPartition, offset: int) -> None:
        assert partition == PARTITION
        self.at = offset

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.committed = offsets[PARTITION]


def loop_of(consumer: Consumer, take: Any) -> _Loop:
    """A consumer loop around it, not assigned anything."""
    service = SimpleNamespace(
        name="notifier", settings=SimpleNamespace(lookahead=100), stop=asyncio.Event(),
        health=SimpleNamespace(ready=lambda _: None, fatal=None),
    )  # fmt: skip
    handling = SimpleNamespace(take=take)
    loop = _Loop(service, topics.COMPLETED, handling, 2, lambda _: False)  # type: ignore[arg-type]
    loop.consumer = consumer
    consumer.listener = _Rebalance(loop)
    return loop


async def test_a_consumer_without_partitions_still_asks() -> None:
    """aiokafka takes one that does not for dead, and tells it of no error: a standby would be out of its
    group for good after a day, and say that it is ready."""
    consumer = Consumer()
    consumer.tells = False
    await loop_of(consumer, None)._read()
    assert consumer.rebalances == 0


async def test_a_rebalance_that_does_not_end_keeps_nobody() -> None:
    """aiokafka waits for its end without a limit; the loop must hear meanwhile that it is to stop."""

    class Joining(Consumer):
        async def getmany(self, *_: TopicPartition, **__: Any) -> Any:
            await asyncio.Event().wait()

    async with asyncio.timeout(30):
        await loop_of(Joining(), None)._read()


@pytest.mark.parametrize("told", [True, False], ids=["told", "told later"])
async def test_a_message_read_across_a_rebalance_is_handled(told: bool) -> None:
    """Dropping it would lose it: aiokafka has moved its position on."""
    consumer = Consumer()
    consumer.tells = told
    handled: list[int] = []

    async def take(message: Any) -> None:
        handled.append(message.offset)

    loop = loop_of(consumer, take)
    await consumer.listener.on_partitions_assigned([PARTITION])
    await loop._read()
    if not told:
        await consumer.listener.on_partitions_assigned([PARTITION])
        await loop._read()
    loop.hands.look()
    await loop.hands.idle(10)
    await loop.commit()
    assert (handled, consumer.committed) == ([0], 1)
