"""Hands handle, and are free while the broker takes what they made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from frond.bus.consumer import _UNSENT, _Loop, _Rebalance
from frond.contracts import topics

PARTITION = TopicPartition(topics.TILED.name, 0)
MESSAGES = _UNSENT + 10


class Broker:
    """Messages to read, and none taken yet of what is made of them."""

    def __init__(self) -> None:
        self.taken = asyncio.Event()
        self.enough = asyncio.Event()
        self.handled = 0
        self.at_once = self.most_at_once = 0
        self.committed: dict[TopicPartition, int] = {}

    async def handle(self, message: Any, handled: Callable[[], None]) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.handled += 1
        if self.handled == _UNSENT:
            self.enough.set()
        handled()
        await self.taken.wait()

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.committed.update(offsets)


async def test_handlers_do_not_wait_for_the_broker() -> None:
    """Two hands handle a thousand events of which none is sent yet, never more than two at once;
    then they wait. Nothing is committed before it is sent; then all is."""
    broker = Broker()
    service = SimpleNamespace(
        name="inference", settings=SimpleNamespace(lookahead=2 * MESSAGES), stop=asyncio.Event(),
        health=SimpleNamespace(ready=lambda _: None, fatal=None),
    )  # fmt: skip
    handling = SimpleNamespace(handle=broker.handle)
    loop = _Loop(service, topics.TILED, handling, 2, lambda _: False)  # type: ignore[arg-type]
    loop.consumer = broker
    await _Rebalance(loop).on_partitions_assigned([PARTITION])
    for offset in range(MESSAGES):
        loop.trackers[PARTITION].add(offset)
        loop.ahead.add(
            PARTITION,
            SimpleNamespace(partition=0, offset=offset, key=b"", headers=(), value=b"{}"),
        )
    loop.hand_out()
    await broker.enough.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert _UNSENT <= broker.handled <= _UNSENT + 2
    assert broker.most_at_once == 2
    await loop.commit()
    assert broker.committed == {}
    broker.taken.set()
    while running := set(loop.tasks[PARTITION]):
        await asyncio.wait(running)
    await loop.commit()
    assert (broker.handled, broker.committed) == (MESSAGES, {PARTITION: MESSAGES})
    assert (loop.free, loop.unsent) == (2, 0)
