"""The drift topic, read from a moment on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from frond.client.environment import frond_env, setting
from frond.client.objects import required
from frond.client.reading import let_go, messages_to
from frond.contracts import topics
from frond.contracts.envelope import decode
from frond.contracts.errors import BrokerUnavailable, UnreadableEvent
from frond.contracts.events import DriftObserved


async def read_drift(since: datetime, take: Callable[[DriftObserved], object]) -> int:
    """Hand every event that was sent since then, up to the topic's present end, to ``take``.

    Returns:
        How many messages are no events of drift, or such that ``take`` cannot take them.

    Raises:
        FrondClientError: FROND_KAFKA_BOOTSTRAP is not set.
        BrokerUnavailable: the broker does not answer, or no longer.
    """
    env = frond_env()
    (bootstrap,) = required(env, "FROND_KAFKA_BOOTSTRAP")
    consumer = AIOKafkaConsumer(
        topics.DRIFT.named(setting(env, "FROND_TOPIC_PREFIX")), bootstrap_servers=bootstrap,
        group_id=None, enable_auto_commit=False, auto_offset_reset="earliest",
        isolation_level="read_committed",
    )  # fmt: skip
    try:
        await consumer.start()
        return await _all_since(consumer, since, take)
    except (KafkaError, OSError) as e:
        raise BrokerUnavailable(f"Kafka does not answer at {bootstrap}: {e}") from e
    finally:
        await let_go(consumer)


async def _all_since(
    consumer: Any, since: datetime, take: Callable[[DriftObserved], object]
) -> int:
    partitions = sorted(consumer.assignment())
    if not partitions:
        return 0  # nothing was ever told of: the topic is not there
    # an event is sent after its period has ended, so that none before can be of later
    begins = await consumer.offsets_for_times(
        {p: int(since.timestamp() * 1000) for p in partitions}
    )
    ends = await consumer.end_offsets(partitions)
    upto = {}
    for p in partitions:
        if begins.get(p) is not None and begins[p].offset < ends[p]:
            consumer.seek(p, begins[p].offset)
            upto[p] = ends[p]
    unreadable = 0
    async for m in messages_to(consumer, upto):
        try:
            event = decode(topics.DRIFT, m.value, m.headers).event
            assert isinstance(event, DriftObserved)
            take(event)
        except (UnreadableEvent, ValueError, ArithmeticError):
            # one message that means nothing does not hide what all the others say
            unreadable += 1
    return unreadable
