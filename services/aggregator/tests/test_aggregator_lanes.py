"""The whole aggregator in this process, with a partition in which something takes long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aggregator_world as world
import pytest

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


@pytest.fixture
async def held(
    w: world.World, service_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Held]:
    """Started on the world's topics."""
    for name, value in service_env.items():
        if name.startswith("FROND_"):
            monkeypatch.setenv(name, value)
    made = Held()
    await made.aggregator.start()
    try:
        yield made
    finally:
        made.gate.set()
        await made.aggregator.stop(8)


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
    offsets, group = held.aggregator.offsets, held.aggregator.group
    ends = await offsets.ends(READ)
    async with asyncio.timeout(60):
        while behind(ends, await offsets.done(group, READ)):  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.2)
