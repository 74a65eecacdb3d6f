"""Nothing of a partition is forgotten of which nothing is committed yet."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from frond.aggregator.rewind import RewindingConsumer
from frond.stack import Endpoints

pytestmark = pytest.mark.stack


async def test_first_messages_are_read_again(
    stack: Endpoints, topic_prefix: str, tmp_path: Path
) -> None:
    """What a rebalance dropped is read again, from the beginning where nothing was committed."""
    name, bootstrap = f"{topic_prefix}first", stack.kafka_bootstrap
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1)])
    await admin.close()
    app = faust.App(
        f"{topic_prefix}group", broker=f"kafka://{bootstrap}", store="memory://",
        datadir=str(tmp_path), web_enabled=False, topic_disable_leader=True,
        topic_allow_declare=False, consumer_auto_offset_reset="earliest", stream_wait_empty=False,
        key_serializer="raw", value_serializer="raw",
    )  # fmt: skip
    app.transport.Consumer = RewindingConsumer
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def take(stream: Any) -> None:
        async for event in stream.noack().events():
            seen.put_nowait(event.message.offset)

    app.agent(app.topic(name, key_serializer="raw", value_serializer="raw"))(take)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    starting = asyncio.create_task(app.start())
    try:
        async with asyncio.timeout(60):
            for value in (b"a", b"b", b"c"):
                await producer.send_and_wait(name, value)
            assert [await seen.get() for _ in range(3)] == [0, 1, 2]
            # what Faust does at the end of each rebalance
            await app.consumer.perform_seek()
            assert [await seen.get() for _ in range(3)] == [0, 1, 2]
    finally:
        await app.stop()
        await asyncio.wait({starting})
        await producer.stop()
