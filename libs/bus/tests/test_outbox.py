"""What is posted arrives in order, and each learns of its own message alone."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError

from frond.bus import ensure_topics
from frond.bus.outbox import Outbox
from frond.contracts import topics
from frond.contracts.envelope import Message

pytestmark = pytest.mark.stack
_KEYS = [b"a", b"b", b"c"]


async def test_all_arrive_in_order_but_what_the_broker_refuses(service_env: dict[str, str]) -> None:
    """1,500 messages of three keys, posted faster than they go out, one of them too large: the others
    are there, each key's in the order of posting, and only the sender of that one is told so."""
    bootstrap, prefix = service_env["FROND_KAFKA_BOOTSTRAP"], service_env["FROND_TOPIC_PREFIX"]
    await ensure_topics(bootstrap, prefix)
    topic = topics.DETECTED.named(prefix)
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", max_request_size=4 << 20, max_batch_size=16 << 10
    )
    await producer.start()
    outbox = Outbox(producer)
    told: dict[int, BaseException | None] = {}
    all_told = asyncio.Event()

    def hear(n: int, error: BaseException | None) -> None:
        assert n not in told
        told[n] = error
        if len(told) == 1500:
            all_told.set()

    for n in range(1500):
        value = bytes(3 << 20) if n == 700 else b"%d" % n
        outbox.post(topic, Message(_KEYS[n % 3], value, [("n", b"1")]), partial(hear, n))
        if n % 100 == 0:
            await asyncio.sleep(0)
    await asyncio.wait_for(all_told.wait(), 60)
    assert [n for n, error in told.items() if error is not None] == [700]
    assert isinstance(told[700], MessageSizeTooLargeError)
    await outbox.close()
    await producer.stop()
    seen = await _everything(bootstrap, topic, 1499)
    for key, first in zip(_KEYS, range(3), strict=True):
        assert seen[key] == [n for n in range(first, 1500, 3) if n != 700]


async def test_a_topic_that_is_not_there_is_told_of(service_env: dict[str, str]) -> None:
    """Whoever posted can send it again; nothing waits behind it."""
    producer = AIOKafkaProducer(
        bootstrap_servers=service_env["FROND_KAFKA_BOOTSTRAP"], request_timeout_ms=2000
    )
    await producer.start()
    outbox = Outbox(producer)
    told = asyncio.get_running_loop().create_future()
    outbox.post("no-such-topic/", Message(b"k", b"v", []), told.set_result)
    assert isinstance(await asyncio.wait_for(told, 30), Exception)
    await outbox.close()
    await producer.stop()


async def _everything(bootstrap: str, topic: str, count: int) -> dict[bytes, list[int]]:
    seen: dict[bytes, list[int]] = {key: [] for key in _KEYS}
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition(topic, p) for p in range(topics.DETECTED.partitions)])
    async with asyncio.timeout(60):
        while sum(map(len, seen.values())) < count:
            for messages in (await consumer.getmany(timeout_ms=200)).values():
                for m in messages:
                    seen[m.key].append(int(m.value))
    await consumer.stop()
    return seen
