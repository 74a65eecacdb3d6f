"""Reading topics in tests: by awaiting events, never the clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer

from frond.contracts.topics import Topic


@asynccontextmanager
async def reading(env: dict[str, str], topic: Topic) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer from the beginning of a topic, of no group."""
    consumer = AIOKafkaConsumer(
        topic.named(env["FROND_TOPIC_PREFIX"]),
        bootstrap_servers=env["FROND_KAFKA_BOOTSTRAP"],
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def first(
    env: dict[str, str], topic: Topic, wanted: Callable[[Any, Any], bool], *, within: float = 400
) -> tuple[Any, Any]:
    """The first message of the topic for which ``wanted(message, data)``, with its JSON value."""
    async with reading(env, topic) as consumer, asyncio.timeout(within):
        async for message in consumer:
            data = json.loads(message.value)
            if wanted(message, data):
                return message, data
    raise AssertionError("the topic ended")


async def completed(env: dict[str, str], job_id: str, *, within: float = 400) -> dict[str, Any]:
    """A job's completed event."""
    from frond.contracts import topics

    _, data = await first(env, topics.COMPLETED, lambda _, d: d["job_id"] == job_id, within=within)
    return dict(data)
