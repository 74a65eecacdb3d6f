"""Reading topics in tests: by awaiting events, never the clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer

from frond.bus.offsets import Offsets
from frond.contracts.topics import Topic


@asynccontextmanager
async def reading(env: dict[str, str], *topics: Topic) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer from the beginning of topics, of no group."""
    consumer = AIOKafkaConsumer(
        *(topic.named(env["FROND_TOPIC_PREFIX"]) for topic in topics),
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


async def whole(env: dict[str, str], *topics: Topic) -> list[Any]:
    """Every message that these topics have now, each partition's in its order."""
    found: list[Any] = []
    async with reading(env, *topics) as consumer, asyncio.timeout(120):
        for partition, end in (await consumer.end_offsets(consumer.assignment())).items():
            while await consumer.position(partition) < end:
                found.append(await consumer.getone(partition))
    return found


async def all_done(env: dict[str, str], service: str, *topics: Topic, within: float = 120) -> None:
    """Wait until a service has committed whatever there is in these topics: what it sends because of
    that is sent."""
    prefix = env["FROND_TOPIC_PREFIX"]
    offsets = Offsets(env["FROND_KAFKA_BOOTSTRAP"], prefix)
    try:
        async with asyncio.timeout(within):
            for topic in topics:
                # ends that move are asked for again: a service may send to what it reads itself
                group = f"{prefix}frond.{service}"
                while (await offsets.lag(group, topic))[0]:  # noqa: ASYNC110 # nobody tells
                    await asyncio.sleep(0.1)
    finally:
        await offsets.close()


async def completed(env: dict[str, str], job_id: str, *, within: float = 400) -> dict[str, Any]:
    """A job's completed event."""
    from frond.contracts import topics

    _, data = await first(env, topics.COMPLETED, lambda _, d: d["job_id"] == job_id, within=within)
    return dict(data)
