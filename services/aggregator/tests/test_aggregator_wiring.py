"""The whole aggregator, in this process: a partition in which something takes long, and its start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aggregator_world as world
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from frond.aggregator import wiring
from frond.aggregator.progress import FaustCrashed
from frond.aggregator.settings import AggregatorSettings
from frond.aggregator.wiring import Aggregator
from frond.bus.offsets import behind
from frond.bus.placing import place
from frond.contracts import topics
from frond.contracts.envelope import Envelope
from frond.contracts.events import JobSealed
from frond.runtime import Service

pytestmark = pytest.mark.stack
READ = (topics.DETECTED, topics.IMAGED)
MANY = 6000
WRITES = 3000


class Held:
    """The aggregator with stages that note what they take, and hold up one job at a gate."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.heard: dict[str, list[int]] = {}
        self.news = asyncio.Event()
        self.aggregator = Aggregator(Service("aggregator", AggregatorSettings()))
        for stage in (self.aggregator.image_stage, self.aggregator.job_stage):
            stage.handle = self._take  # type: ignore[method-assign, assignment]

    async def _take(self, envelope: Envelope) -> bool:
        event = envelope.event
        assert isinstance(event, JobSealed)
        if event.job_id == "busy":
            await self.gate.wait()
        self.heard.setdefault(event.job_id, []).append(event.job_size)
        self.news.set()
        return False

    async def until_heard(self, job_id: str, count: int) -> None:
        """Wait until so many events of a job were taken."""
        async with asyncio.timeout(120):
            while len(self.heard.get(job_id, ())) < count:
                self.news.clear()
                await self.news.wait()


@pytest.fixture
async def w(service_env: dict[str, str]) -> AsyncIterator[world.World]:
    async with world.World(service_env) as made:
        yield made


@pytest.fixture(autouse=True)
def environment(service_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a service on the world's topics finds around it."""
    for name, value in service_env.items():
        if name.startswith("FROND_"):
            monkeypatch.setenv(name, value)


@asynccontextmanager
async def running(made: Held | None = None) -> AsyncIterator[Held]:
    """Started, and stopped in the end."""
    made = made or Held()
    await made.aggregator.start()
    try:
        yield made
    finally:
        made.gate.set()
        await made.aggregator.stop(8)


@pytest.fixture
async def held(w: world.World) -> AsyncIterator[Held]:
    async with running() as made:
        yield made


def _partition(job_id: str) -> int:
    every = range(topics.IMAGED.partitions)
    return place(job_id.encode(), every, every)


async def test_a_partition_in_which_something_takes_long_stops_no_other(
    w: world.World, held: Held
) -> None:
    """However much waits behind it: jobs and images of other partitions go on, what waits is bounded,
    and once it is done all that waited is taken in order, each once, and committed."""
    lanes = held.aggregator.lanes
    other = next(job for job in map(str, range(99)) if _partition(job) != _partition("busy"))
    await w.send([JobSealed(job_id="busy", job_size=n + 1) for n in range(MANY)], topics.IMAGED)
    waiting = -1
    while len(lanes._tasks) != waiting or not waiting:
        waiting = len(lanes._tasks)
        await asyncio.sleep(1.5)
    assert waiting < 1500
    await w.send([JobSealed(job_id=other, job_size=1)], topics.IMAGED)
    await w.send([JobSealed(job_id=other, job_size=2)], topics.DETECTED)
    await held.until_heard(other, 2)
    assert sorted(held.heard[other]) == [1, 2]
    held.gate.set()
    await held.until_heard("busy", MANY)
    assert held.heard["busy"] == list(range(1, MANY + 1))
    await _all_committed(held)


async def test_what_waits_behind_a_full_lane_survives_a_rebalance(
    w: world.World, held: Held
) -> None:
    """What was read and waits is read again by whoever has the partition then, and so is what was not."""
    lanes = held.aggregator.lanes
    await w.send([JobSealed(job_id="busy", job_size=n + 1) for n in range(MANY)], topics.IMAGED)
    while not lanes.full:  # noqa: ASYNC110 # nobody tells
        await asyncio.sleep(0.1)
    async with running() as other:
        async with asyncio.timeout(120):
            while not (_owned(held) and _owned(other)):  # noqa: ASYNC110 # nobody tells
                await asyncio.sleep(0.1)
        held.gate.set()
        other.gate.set()
        await _all_committed(held)
    taken = held.heard.get("busy", []) + other.heard.get("busy", [])
    assert set(taken) == set(range(1, MANY + 1))


def _owned(held: Held) -> bool:
    """Whether it has partitions, and reads them."""
    consumer = held.aggregator.app.consumer
    return 0 < len(consumer.begins) < len(READ) * topics.IMAGED.partitions


async def _all_committed(held: Held) -> None:
    offsets, group = held.aggregator.offsets, held.aggregator.group
    ends = await offsets.ends(READ)
    async with asyncio.timeout(120):
        while behind(ends, await offsets.done(group, READ)):  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.2)


async def test_a_table_is_recovered_from_a_changelog_that_is_compacted_soon(w: world.World) -> None:
    """So that a start replays the writes of minutes, and not of a day; and it can be seen that it gets on."""
    async with running() as before:
        changelog = before.aggregator.changelog("images")
        settings = await _settings(w, changelog)
    assert int(settings["segment.ms"]) <= 3600_000
    assert int(settings["segment.bytes"]) <= 64 << 20
    assert float(settings["min.cleanable.dirty.ratio"]) <= 0.2
    assert int(settings["delete.retention.ms"]) <= 3600_000
    producer = AIOKafkaProducer(bootstrap_servers=w.bootstrap)
    await producer.start()
    for n in range(WRITES):
        await producer.send(changelog, b"state", f"{n}".encode(), partition=0)
    await producer.stop()
    after = Held()
    aggregator, told = after.aggregator, []
    table = aggregator.image_stage.table
    take = table.on_changelog_event

    async def noted(event: object) -> None:
        told.append(aggregator._recovered().get(TopicPartition(changelog, 0)))
        await take(event)

    table.on_changelog_event = noted
    async with running(after), asyncio.timeout(120):
        while not aggregator.app.tables.actives_ready:  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.01)
        assert len(table) == WRITES
        assert aggregator._recovered()[TopicPartition(changelog, 0)] == WRITES - 1
    assert told == list(range(WRITES))


async def _settings(w: world.World, topic: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=w.bootstrap)
    await admin.start()
    try:
        (said,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    finally:
        await admin.close()
    ((_, _, _, _, entries),) = said.resources
    return {name: value for name, value, *_ in entries}


async def test_a_start_is_given_up_when_it_gets_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while tables are recovered, however many there are."""
    monkeypatch.setattr(wiring, "_START_S", 1.2)
    aggregator, read = Held().aggregator, [0]
    monkeypatch.setattr(aggregator, "_recovered", lambda: {"changelog": read[0]})
    watching = asyncio.create_task(aggregator.watch())
    try:
        for _ in range(8):
            await asyncio.sleep(0.4)
            read[0] += 1
        assert not watching.done()
        with pytest.raises(FaustCrashed, match="did not start"):
            await asyncio.wait_for(watching, 30)
    finally:
        await aggregator.stop(1)
