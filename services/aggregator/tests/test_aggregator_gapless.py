"""Nothing of a partition is forgotten in a rebalance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from faust.types import TP

from frond.aggregator.gapless import GaplessConsumer
from frond.stack import Endpoints

pytestmark = pytest.mark.stack


class Reader:
    """A Faust app of one agent that notes the offsets it takes while its gate is open."""

    def __init__(self, app: Any, topic: str) -> None:
        self.app = app
        self.topic = topic
        self.gate = asyncio.Event()
        self.gate.set()
        self._seen: asyncio.Queue[int] = asyncio.Queue()
        source = app.topic(topic, key_serializer="raw", value_serializer="raw")
        app.agent(source)(self._take)

    async def _take(self, stream: Any) -> None:
        async for event in stream.noack().events():
            self._seen.put_nowait(event.message.offset)
            await self.gate.wait()

    async def next(self, count: int) -> list[int]:
        """The offsets of the next messages."""
        return [await self._seen.get() for _ in range(count)]

    @property
    def nothing(self) -> bool:
        """Whether all that was taken has been told."""
        return self._seen.empty()


@pytest.fixture
async def producer(stack: Endpoints) -> AsyncIterator[AIOKafkaProducer]:
    """Sends to the stack's broker."""
    producer = AIOKafkaProducer(bootstrap_servers=stack.kafka_bootstrap)
    await producer.start()
    yield producer
    await producer.stop()


@asynccontextmanager
async def reader(
    bootstrap: str,
    name: str,
    folder: Path,
    *,
    partitions: int = 1,
    full: Callable[[], AbstractSet[Any]] = frozenset,
) -> AsyncIterator[Reader]:
    """A running app with the consumer, set as the aggregator sets it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 1)])
    await admin.close()
    app = faust.App(
        f"{name}-group", broker=f"kafka://{bootstrap}", store="memory://", datadir=str(folder),
        web_enabled=False, topic_disable_leader=True, topic_allow_declare=False,
        consumer_auto_offset_reset="earliest", stream_wait_empty=False, key_serializer="raw",
        value_serializer="raw",
    )  # fmt: skip
    app.transport.Consumer = partial(GaplessConsumer, full=full)
    found = Reader(app, name)
    starting = asyncio.create_task(app.start())
    try:
        async with asyncio.timeout(240):
            yield found
    finally:
        found.gate.set()
        await app.stop()
        await asyncio.wait({starting})


async def test_first_messages_are_read_again(
    stack: Endpoints, topic_prefix: str, producer: AIOKafkaProducer, tmp_path: Path
) -> None:
    """What a rebalance dropped is read again, from the beginning where nothing was committed."""
    name = f"{topic_prefix}first"
    async with reader(stack.kafka_bootstrap, name, tmp_path) as found:
        for value in (b"a", b"b", b"c"):
            await producer.send_and_wait(name, value)
        assert await found.next(3) == [0, 1, 2]
        # what Faust does at the end of each rebalance
        await found.app.consumer.perform_seek()
        assert await found.next(3) == [0, 1, 2]


async def test_resuming_the_flow_passes_nothing_over(
    stack: Endpoints, topic_prefix: str, producer: AIOKafkaProducer, tmp_path: Path
) -> None:
    """Messages that lie there while Faust ends a rebalance, with a flow that is active already as
    it is after tables were recovered, are all taken, in order."""
    name = f"{topic_prefix}flow"
    async with reader(stack.kafka_bootstrap, name, tmp_path) as found:
        consumer, flow = found.app.consumer, found.app.flow_control
        await producer.send_and_wait(name, b"first")
        # the agent is at work with the first one; what comes now waits in its queue
        found.gate.clear()
        assert await found.next(1) == [0]
        tps = consumer.assignment()
        consumer.pause_partitions(tps)
        for value in (b"a", b"b", b"c"):
            await producer.send_and_wait(name, value)
        # the end of RecoveryService.on_recovery_completed
        consumer.resume_partitions(tps)
        await consumer.perform_seek()
        # the next steps follow at once, or later; a fetcher without partitions looks once a second,
        # and that it finds none is announced by nothing
        await asyncio.sleep(1.5)
        flow.resume()
        consumer.resume_flow()
        found.gate.set()
        # the first one is not committed, so it comes again
        assert await found.next(4) == [0, 1, 2, 3]


async def test_a_queue_that_drains_resumes_no_partition_that_is_paused(
    stack: Endpoints, topic_prefix: str, producer: AIOKafkaProducer, tmp_path: Path
) -> None:
    """While tables are recovered nothing is read of the source topics, though a queue that was full
    before the rebalance is empty now; and of a rebalance nothing is left to drain."""
    name = f"{topic_prefix}drain"
    async with reader(stack.kafka_bootstrap, name, tmp_path) as found:
        consumer = found.app.consumer
        await producer.send_and_wait(name, b"first")
        assert await found.next(1) == [0]
        (tp,) = consumer.assignment()
        consumer.on_buffer_full(tp)
        consumer.pause_partitions({tp})
        consumer.on_buffer_drop(tp)
        assert tp not in consumer._get_active_partitions()
        assert tp in consumer.begins
        consumer.on_buffer_full(tp)
        await consumer.on_partitions_revoked({tp})
        assert tp not in consumer.begins
        consumer.on_buffer_drop(tp)
        assert tp not in consumer._get_active_partitions()


async def test_a_full_partition_is_left_alone_and_loses_nothing(
    stack: Endpoints, topic_prefix: str, producer: AIOKafkaProducer, tmp_path: Path
) -> None:
    """The others are read meanwhile. What it holds is read in order once there is room, also when
    partitions were sought in between. When all are full, nothing is read, least of all everything."""
    name = f"{topic_prefix}full"
    first, second = TP(name, 0), TP(name, 1)
    full = {first, second}
    async with reader(
        stack.kafka_bootstrap, name, tmp_path, partitions=2, full=lambda: full
    ) as found:
        for value in (b"a", b"b", b"c"):
            for tp in (first, second):
                await producer.send_and_wait(name, value, partition=tp.partition)
        while len(found.app.consumer.begins) < 2:  # noqa: ASYNC110 # Faust does not tell
            await asyncio.sleep(0.1)
        await asyncio.sleep(1.5)
        assert found.nothing
        full.discard(second)
        assert await found.next(3) == [0, 1, 2]
        await found.app.consumer.perform_seek()
        assert await found.next(3) == [0, 1, 2]
        await asyncio.sleep(1.5)
        assert found.nothing
        full.discard(first)
        assert await found.next(3) == [0, 1, 2]
