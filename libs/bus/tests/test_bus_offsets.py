"""What the broker says of ends and commits."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from frond.bus import EventProducer
from frond.bus.offsets import Offsets, behind
from frond.contracts import topics
from frond.runtime import ServiceSettings

pytestmark = pytest.mark.stack


async def _commit(settings: ServiceSettings, group: str, at: TopicPartition, offset: int) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap, group_id=group, enable_auto_commit=False
    )
    consumer.assign([at])
    await consumer.start()
    try:
        await consumer.commit({at: offset})
    finally:
        await consumer.stop()


async def test_what_was_removed_before_anybody_committed_it_is_done(
    settings: ServiceSettings,
) -> None:
    """As retention removes it; what came afterwards is not."""
    producer = EventProducer(settings.kafka_bootstrap, settings.topic_prefix, "/test")
    await producer.start()
    sent = [await producer.send_raw(topics.UPLOADED, b"key", b"value", []) for _ in range(3)]
    await producer.stop()
    at = TopicPartition(topics.UPLOADED.named(settings.topic_prefix), sent[0].partition)
    offsets = Offsets(settings.kafka_bootstrap, settings.topic_prefix)
    group = settings.group("reader")
    await _commit(settings, group, at, 1)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        ends = await offsets.ends([topics.UPLOADED])
        assert ends[at] == 3
        for removed, left in ((2, [at]), (3, [])):
            await admin.delete_records({at: RecordsToDelete(before_offset=removed)})
            done = await offsets.done(group, [topics.UPLOADED])
            assert done[at] == removed
            assert behind(ends, done) == left
        assert (await offsets.lag(group, topics.UPLOADED))[0] == 0
    finally:
        await admin.close()
        await offsets.close()
