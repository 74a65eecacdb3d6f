"""Topics as they are made."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from frond.bus import ensure_topics
from frond.bus.admin import TopicMisfit
from frond.bus.offsets import Offsets
from frond.contracts import topics
from frond.contracts.errors import BrokerUnavailable
from frond.contracts.topics import Topic
from frond.runtime import wait_out

pytestmark = pytest.mark.stack


async def test_on_as_many_brokers_as_were_asked_for(service_env: dict[str, str]) -> None:
    """Here is one: it says that it cannot hold two copies of an event, and so that two were asked for."""
    bootstrap, prefix = service_env["FROND_KAFKA_BOOTSTRAP"], service_env["FROND_TOPIC_PREFIX"]
    with pytest.raises(BrokerUnavailable, match="InvalidReplicationFactor"):
        await ensure_topics(bootstrap, prefix, replication_factor=2)
    await ensure_topics(bootstrap, prefix, replication_factor=1)


async def _made(env: dict[str, str], topic: Topic, partitions: int) -> tuple[str, str]:
    """A topic as somebody else made it, before Frond was there; where, and its prefix."""
    bootstrap, prefix = env["FROND_KAFKA_BOOTSTRAP"], env["FROND_TOPIC_PREFIX"]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic.named(prefix), partitions, 1)])
    finally:
        await admin.close()
    return bootstrap, prefix


@pytest.mark.parametrize("partitions", [1, topics.UPLOADED.partitions + 3])
async def test_a_topic_that_a_publisher_made_has_as_many_partitions_at_least(
    service_env: dict[str, str], partitions: int
) -> None:
    """A broker may make it on demand, with one. Of more, the ends of all are known: what lies in those
    waits, too."""
    bootstrap, prefix = await _made(service_env, topics.UPLOADED, partitions)
    await ensure_topics(bootstrap, prefix)
    offsets = Offsets(bootstrap, prefix)
    try:
        ends = await offsets.ends([topics.UPLOADED])
    finally:
        await offsets.close()
    assert {p.partition for p in ends} == set(range(max(partitions, topics.UPLOADED.partitions)))


@pytest.mark.parametrize("partitions", [1, topics.DETECTED.partitions + 1])
async def test_a_topic_of_a_table_has_as_many_partitions_as_the_table(
    service_env: dict[str, str], partitions: int
) -> None:
    """Keys would be looked for where they are not: a sentence says what to do."""
    bootstrap, prefix = await _made(service_env, topics.DETECTED, partitions)
    with pytest.raises(TopicMisfit, match=rf"{topics.DETECTED.name} has {partitions} partitions"):
        await ensure_topics(bootstrap, prefix)


async def test_the_ends_of_fewer_partitions_than_declared_are_told(
    service_env: dict[str, str],
) -> None:
    """Where they were made while services ran; a topic that is not there is an outage."""
    bootstrap, prefix = await _made(service_env, topics.UPLOADED, 1)
    offsets = Offsets(bootstrap, prefix)
    try:
        # KRaft shows it a little later
        async with asyncio.timeout(60):
            ends = await wait_out(lambda: offsets.ends([topics.UPLOADED]))
        assert len(ends) == 1
        with pytest.raises(BrokerUnavailable):
            await offsets.ends([topics.UPLOADED, topics.TILED])
    finally:
        await offsets.close()
