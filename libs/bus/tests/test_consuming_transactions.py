"""A publisher that uses transactions, as exactly-once sinks do: their ends are offsets, and no
messages."""
# ruff: noqa: ASYNC110 (the broker tells nobody that an offset has moved)

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from frond.bus import EventProducer, Outgoing, consume
from frond.bus.offsets import Offsets, behind
from frond.contracts import topics
from frond.contracts.envelope import Envelope
from frond.contracts.events import JobSealed
from frond.runtime import Service, ServiceSettings

pytestmark = pytest.mark.stack


@pytest.fixture
async def publisher(settings: ServiceSettings) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, transactional_id=uuid.uuid4().hex
    )
    await producer.start()
    yield producer
    await producer.stop()


async def send(publisher: AIOKafkaProducer, settings: ServiceSettings, job_id: str) -> None:
    value = JobSealed(job_id=job_id, job_size=1).model_dump_json().encode()
    await publisher.send_and_wait(topics.UPLOADED.named(settings.topic_prefix), value, partition=0)


async def test_commits_reach_the_end_behind_a_transaction(
    settings: ServiceSettings, publisher: AIOKafkaProducer
) -> None:
    """What was committed is handled, what was undone is not; then nothing waits any more. Else the
    reconciler, which drives no job while an event may be unhandled, would wait for ever."""
    handled: list[str] = []

    async def note(envelope: Envelope) -> Sequence[Outgoing]:
        handled.append(envelope.event.subject)
        return ()

    async with publisher.transaction():
        await send(publisher, settings, "done")
    await publisher.begin_transaction()
    await send(publisher, settings, "undone")
    await publisher.abort_transaction()
    service = Service("copier", settings)
    producer = EventProducer(settings.kafka_bootstrap, settings.topic_prefix, "/copier")
    await producer.start()
    task = asyncio.create_task(consume(service, topics.UPLOADED, note, producer=producer))
    offsets = Offsets(settings.kafka_bootstrap, settings.topic_prefix)
    try:
        ends = await offsets.ends([topics.UPLOADED])
        async with asyncio.timeout(120):
            while behind(ends, await offsets.committed(settings.group("copier"))):
                await asyncio.sleep(0.2)
    finally:
        service.stop.set()
        await asyncio.wait_for(task, 120)
        await producer.stop()
        await offsets.close()
    assert handled == ["done"]


async def test_what_lies_behind_an_open_transaction_is_waited_for(
    settings: ServiceSettings, publisher: AIOKafkaProducer
) -> None:
    """It is sent, and nobody can read it: the reconciler must not take it for handled in vain."""
    at = TopicPartition(topics.UPLOADED.named(settings.topic_prefix), 0)
    offsets = Offsets(settings.kafka_bootstrap, settings.topic_prefix)
    await publisher.begin_transaction()
    await send(publisher, settings, "open")
    ends = await offsets.ends([topics.UPLOADED])
    await publisher.abort_transaction()
    await offsets.close()
    assert ends[at] == 1
