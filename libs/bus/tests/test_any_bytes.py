"""What a publisher may put on a topic and aiokafka alone could not read."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Producer

from frond.bus import DeadLetter, ensure_topics
from frond.bus.records import TolerantRecords
from frond.contracts import topics
from frond.contracts.envelope import UnreadableEvent, decode
from frond.stack import Endpoints

# aiokafka's own producer, in plain Python, with a name that it would not write by itself
_ODD = """
import asyncio, sys
from aiokafka import AIOKafkaProducer
class Name(str):
    def encode(self, *_):
        return bytes.fromhex(sys.argv[3])
async def main():
    producer = AIOKafkaProducer(bootstrap_servers=sys.argv[1])
    await producer.start()
    for odd in (False, True, False):
        name = Name("x") if odd else "fine"
        await producer.send(sys.argv[2], b"odd" if odd else b"even", headers=[(name, b"1")], key=b"k")
    await producer.stop()
asyncio.run(main())
"""


async def read(bootstrap: str, topic: str, count: int) -> list[Any]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(30):
            return [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()


@pytest.mark.stack
async def test_a_headers_name_may_be_any_bytes(stack: Endpoints, topic_prefix: str) -> None:
    """The message is read, between its neighbours, under a name that can be sent on."""
    await ensure_topics(stack.kafka_bootstrap, topic_prefix)
    name = topics.UPLOADED.named(topic_prefix)
    await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _ODD, stack.kafka_bootstrap, name, b"\xff\xfeX".hex()],
        env={**os.environ, "AIOKAFKA_NO_EXTENSIONS": "1"}, check=True, timeout=60,
    )  # fmt: skip
    got = await read(stack.kafka_bootstrap, name, 3)
    assert [m.value for m in got] == [b"even", b"odd", b"even"]
    assert [m.headers for m in got] == [
        (("fine", b"1"),), (("\\xff\\xfeX", b"1"),), (("fine", b"1"),),
    ]  # fmt: skip


@pytest.mark.stack
@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_a_publisher_compresses_as_it_likes(
    stack: Endpoints, topic_prefix: str, codec: str
) -> None:
    """Readers need no library for it: the broker unpacks."""
    await ensure_topics(stack.kafka_bootstrap, topic_prefix)
    name = topics.UPLOADED.named(topic_prefix)

    def publish() -> None:
        producer = Producer({"bootstrap.servers": stack.kafka_bootstrap, "compression.type": codec})
        for i in range(20):
            producer.produce(name, f"{i} ".encode() * 500, key="k")
        assert producer.flush(30) == 0

    await asyncio.to_thread(publish)
    got = await read(stack.kafka_bootstrap, name, 20)
    assert sorted(m.value for m in got) == sorted(f"{i} ".encode() * 500 for i in range(20))


@pytest.mark.stack
async def test_what_is_small_when_packed_is_measured_unpacked(
    stack: Endpoints, topic_prefix: str
) -> None:
    """A message that would grow past a topic's bound in its reader is refused to its publisher."""
    await ensure_topics(stack.kafka_bootstrap, topic_prefix)
    refused: list[Any] = []

    def publish() -> None:
        producer = Producer({
            "bootstrap.servers": stack.kafka_bootstrap, "compression.type": "zstd",
            "message.max.bytes": 100_000_000,
        })  # fmt: skip
        producer.produce(
            topics.UPLOADED.named(topic_prefix), b"0" * (8 << 20), key="k",
            on_delivery=lambda error, _: refused.append(error),
        )  # fmt: skip
        producer.flush(30)

    await asyncio.to_thread(publish)
    assert refused and refused[0] is not None and refused[0].name() == "MSG_SIZE_TOO_LARGE"


def test_no_bytes_are_no_records() -> None:
    """An empty fetch has nothing, and the size that it has."""
    records = TolerantRecords(b"")
    assert not records.has_next() and records.next_batch() is None
    assert records.size_in_bytes() == 0


def test_a_dead_letter_with_any_headers_is_read() -> None:
    """What is no number counts as unknown; nothing is raised."""
    odd = [
        ("dlq_partition", b"x"),
        ("dlq_offset", b"9" * 5000),
        ("dlq_attempts", b"\xff"),
        ("a", b""),
    ]
    letter = DeadLetter.from_message(None, None, odd)
    assert (letter.partition, letter.offset, letter.attempts) == (-1, -1, 0)
    assert letter.headers == [("a", b"")]


def test_a_reason_can_always_be_sent() -> None:
    """A field whose name no UTF-8 text can hold is told of in a letter all the same."""
    value = b'{"job_id": "a", "status": "running", "updated": 0, "detections": {"\\ud800": "x"}}'
    with pytest.raises(UnreadableEvent) as e:
        decode(topics.STATUS, value, [("ce_type", b"frond.job.status.v1")])
    assert str(e.value).encode()
