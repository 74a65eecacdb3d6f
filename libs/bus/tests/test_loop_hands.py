"""Hands handle, and are free while the broker takes what they made."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from frond.bus import Outgoing
from frond.bus.consumer import _Loop, _Rebalance
from frond.bus.handling import Handling
from frond.bus.hands import UNSENT, UNSENT_BYTES
from frond.bus.outbox import Told
from frond.contracts import topics
from frond.contracts.envelope import Envelope, encode
from frond.contracts.errors import BrokerUnavailable, FrondError
from frond.contracts.golden import GOLDEN
from frond.contracts.topics import Topic

PARTITION = TopicPartition(topics.TILED.name, 0)
MESSAGES = UNSENT + 10


class Broker:
    """Messages to read, and none taken yet of what is made of them."""

    def __init__(self) -> None:
        self.taken = asyncio.Event()
        self.enough = asyncio.Event()
        self.handled = 0
        self.at_once = self.most_at_once = 0
        self.committed: dict[TopicPartition, int] = {}

    async def take(self, message: Any) -> Any:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.handled += 1
        if self.handled == UNSENT:
            self.enough.set()
        return message

    def post(self, _: Any, told: Told) -> None:
        waiting = asyncio.ensure_future(self.taken.wait())
        waiting.add_done_callback(lambda _: told(None))

    def done(self, _: Any) -> None:
        assert self.taken.is_set()

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
    loop = _Loop(service, topics.TILED, broker, 2, lambda _: False)  # type: ignore[arg-type]
    loop.consumer = broker
    await _Rebalance(loop).on_partitions_assigned([PARTITION])
    for offset in range(MESSAGES):
        loop.trackers[PARTITION].add(offset)
        loop.ahead.add(
            PARTITION,
            SimpleNamespace(partition=0, offset=offset, key=b"", headers=(), value=b"{}"),
        )
    loop.hands.look()
    await broker.enough.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert UNSENT <= broker.handled <= UNSENT + 2
    assert broker.most_at_once == 2
    await loop.commit()
    assert broker.committed == {}
    broker.taken.set()
    while loop.hands.in_flight or loop.ahead:
        await loop.hands.idle(10)
        loop.hands.look()
    await loop.commit()
    assert (broker.handled, broker.committed) == (MESSAGES, {PARTITION: MESSAGES})
    assert (loop.hands.free, loop.hands.unsent) == (2, 0)


class Outage(Broker):
    """Takes nothing but what is sent again."""

    def post(self, made: Any, told: Told) -> None:
        told(BrokerUnavailable("no answer"))

    async def send_again(self, made: Any, error: BaseException) -> None:
        assert isinstance(error, BrokerUnavailable)
        await self.taken.wait()


async def test_what_was_refused_is_not_committed_before_it_is_sent_again() -> None:
    """The broker takes nothing of three events: no offset moves; then it takes what is sent again."""
    broker = Outage()
    service = SimpleNamespace(
        name="inference", settings=SimpleNamespace(lookahead=10), stop=asyncio.Event(),
        health=SimpleNamespace(ready=lambda _: None, fatal=None),
    )  # fmt: skip
    loop = _Loop(service, topics.TILED, broker, 2, lambda _: False)  # type: ignore[arg-type]
    loop.consumer = broker
    await _Rebalance(loop).on_partitions_assigned([PARTITION])
    for offset in range(3):
        loop.trackers[PARTITION].add(offset)
        loop.ahead.add(
            PARTITION,
            SimpleNamespace(partition=0, offset=offset, key=b"", headers=(), value=b"{}"),
        )
    loop.hands.look()
    for _ in range(20):
        await asyncio.sleep(0)
    await loop.commit()
    assert (broker.handled, broker.committed, loop.hands.unsent) == (3, {}, 3)
    broker.taken.set()
    await loop.hands.idle(10)
    await loop.commit()
    assert (broker.committed, loop.hands.unsent) == ({PARTITION: 3}, 0)


class Refusing:
    """A producer that no result gets through; dead letters do."""

    def __init__(self) -> None:
        self.sent = 0
        self.letters: list[bytes | None] = []

    def post(self, *_: Any, **__: Any) -> None:
        self.sent += 1
        raise FrondError("larger than the topic takes")

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
    message = SimpleNamespace(
        partition=0, offset=7, key=made.key, value=made.value, headers=made.headers
    )
    await handling.handle(message)
    assert (calls, producer.sent) == (1, 3)
    assert producer.letters == [made.value]


class Betrayed(Broker):
    """Whose handling is cancelled by nobody that has a right to."""

    async def take(self, message: Any) -> Any:
        raise asyncio.CancelledError


async def test_an_event_that_nobody_cancelled_is_not_forgotten() -> None:
    """A library's own CancelledError would leave the event unfinished for ever: the service stops, so
    that it is read again."""
    service = SimpleNamespace(
        name="inference", settings=SimpleNamespace(lookahead=10), stop=asyncio.Event(),
        health=SimpleNamespace(ready=lambda _: None, fatal=None),
    )  # fmt: skip
    loop = _Loop(service, topics.TILED, Betrayed(), 2, lambda _: False)  # type: ignore[arg-type]
    await _Rebalance(loop).on_partitions_assigned([PARTITION])
    loop.trackers[PARTITION].add(0)
    loop.ahead.add(
        PARTITION, SimpleNamespace(partition=0, offset=0, key=b"", headers=(), value=b"{}")
    )
    loop.hands.look()
    async with asyncio.timeout(60):
        await service.stop.wait()
    assert service.health.fatal is not None


async def test_unsent_events_are_bounded_by_their_bytes() -> None:
    """Of large messages far fewer than a thousand are held while the broker takes nothing."""
    broker = Broker()
    service = SimpleNamespace(
        name="inference", settings=SimpleNamespace(lookahead=100), stop=asyncio.Event(),
        health=SimpleNamespace(ready=lambda _: None, fatal=None),
    )  # fmt: skip
    loop = _Loop(service, topics.TILED, broker, 2, lambda _: False)  # type: ignore[arg-type]
    loop.consumer = broker
    await _Rebalance(loop).on_partitions_assigned([PARTITION])
    large = bytes(UNSENT_BYTES // 8)
    for offset in range(20):
        loop.trackers[PARTITION].add(offset)
        message = SimpleNamespace(partition=0, offset=offset, key=b"", headers=(), value=large)
        loop.ahead.add(PARTITION, message)
    loop.hands.look()
    for _ in range(100):
        await asyncio.sleep(0)
    assert 8 <= broker.handled <= 10
    broker.taken.set()
    while loop.hands.in_flight or loop.ahead:
        await loop.hands.idle(10)
        loop.hands.look()
    await loop.commit()
    assert broker.committed == {PARTITION: 20}
