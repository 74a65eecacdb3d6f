"""Hands handle, and are free while the broker takes what they made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from frond.bus import Outgoing
from frond.bus.consumer import _UNSENT, _Loop, _Rebalance
from frond.bus.handling import Handling
from frond.contracts import topics
from frond.contracts.envelope import Envelope, encode
from frond.contracts.errors import FrondError
from frond.contracts.golden import GOLDEN
from frond.contracts.topics import Topic

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


class Refusing:
    """A producer that no result gets through; dead letters do."""

    def __init__(self) -> None:
        self.sent = 0
        self.letters: list[bytes | None] = []

    async def send(self, *_: Any, **__: Any) -> None:
        self.sent += 1
        raise FrondError("larger than the topic takes")

    async def send_raw(self, topic: Topic, key: Any, value: Any, headers: Any) -> None:
        self.letters.append(value)


async def test_only_the_sending_is_tried_again() -> None:
    """A result that cannot be sent costs its handler no second run: it has no hand any more."""
    calls = 0

    async def handler(_: Envelope) -> list[Outgoing]:
        nonlocal calls
        calls += 1
        return [Outgoing(topics.DETECTED, GOLDEN["chunk-detected"])]

    producer = Refusing()
    handling = Handling(topics.TILED, "group", handler, producer)  # type: ignore[arg-type]
    made = encode(GOLDEN["chunk-planned"], source="/test")
    freed: list[None] = []
    message = SimpleNamespace(
        partition=0, offset=7, key=made.key, value=made.value, headers=made.headers
    )
    await handling.handle(message, lambda: freed.append(None))
    assert (calls, producer.sent, len(freed)) == (1, 3, 1)
    assert producer.letters == [made.value]
