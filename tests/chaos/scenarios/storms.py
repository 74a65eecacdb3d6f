"""Rebalance storms: workers of every service come and go; workers that sleep wake up as zombies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from chaos import outside
from chaos.world import Mode, Needs, World
from frond.contracts import topics
from support.services import NAMES

NAME: Final = "storms"
ABOUT: Final = (
    "2 to 3 workers of each service join, leave and die every few seconds; a worker of each is "
    "frozen past its session's end and goes on as a zombie"
)
NEEDS: Final = Needs(workers=dict.fromkeys(NAMES, 2))

_MOST: Final = 3
_MOVES: Final = 4
"""Joins and leaves of the short run; the long one makes them for half of its time."""
_PAUSE_S: Final = (1.0, 4.0)
_GROUPS: Final = {s: f"frond.{s}" for s in NAMES if s != "ingest"}
_GATES: Final = {
    "ingest": topics.UPLOADED, "tiler": topics.UPLOADED, "inference": topics.TILED,
    "aggregator": topics.DETECTED, "notifier": topics.COMPLETED,
}  # fmt: skip

_LAST: Final = {"successful", "failed", "dismissed"}


async def run(world: World) -> None:
    """A storm, then zombies, in turns until the time is over; jobs flow all the while."""
    stop = asyncio.Event()
    # one of a hundred images is always under way, and small ones through each door beside it
    async with world.feeder.flowing(2):
        large = asyncio.create_task(_large_jobs(world, stop))
        try:
            await _storm(world)
            await _zombies(world)
            while not world.short and world.time_left > 0:
                await _storm(world)
                await _zombies(world)
        finally:
            stop.set()
            await large
    await _two_of_each(world)
    await world.ended()
    await _last_words(world)


async def _large_jobs(world: World, stop: asyncio.Event) -> None:
    while not stop.is_set():
        plan = world.feeder.big(20 if world.short else 100)
        await world.feeder.submit(plan)
        while not stop.is_set() and plan.job_id not in world.watch.ended:
            await world.watch.any_change(1.0)


async def _storm(world: World) -> None:
    moves = _MOVES if world.short else world.rng.randint(10, 20)
    for _ in range(moves):
        await world.progress(topics.DETECTED, 1)
        _join_or_leave(world, world.rng.choice(NAMES))
        await asyncio.sleep(world.rng.uniform(*_PAUSE_S))


def _join_or_leave(world: World, service: str) -> None:
    here, rng = world.installation, world.rng
    names = here.names(service)
    if len(names) < _MOST and (len(names) == 1 or rng.random() < 0.5):
        world.fault("join", worker=here.add(service))
        return
    leaving = rng.choice(names)
    if rng.random() < 0.3:
        here.remove(leaving, signal.SIGKILL)
    else:
        here.remove(leaving)
    world.fault("leave", worker=leaving)


async def _two_of_each(world: World) -> None:
    for service in NAMES:
        while len(world.installation.names(service)) < 2:
            world.installation.add(service)
    await world.installation.ready()


async def _zombies(world: World) -> None:
    await _two_of_each(world)
    services = list(NAMES)
    world.rng.shuffle(services)
    for service in services[:3] if world.short else services:
        await _zombie(world, service)


async def _zombie(world: World, service: str) -> None:
    """Freeze a worker at work until its group goes on without it; then let it go on."""
    here = world.installation
    if service == "notifier":
        # an attempt is under way, and stays so
        world.receiver.behave(Mode.HANG)
    try:
        posts = len(world.receiver.deliveries)
        await world.progress(_GATES[service], 1)
        while service == "notifier" and len(world.receiver.deliveries) == posts:
            await world.watch.any_change(0.2)
        frozen = world.rng.choice(here.names(service))
        here.freeze(frozen)
        world.fault("freeze", worker=frozen)
        if service in _GROUPS:
            members = len(here.names(service))
            await _group_has(here.stack.direct.kafka_bootstrap, _GROUPS[service], members - 1)
    finally:
        world.receiver.behave(Mode.OK)
    # the others have what it had
    await world.progress(topics.COMPLETED, 1, within=300)
    here.thaw(frozen)
    await world.progress(topics.COMPLETED, 1, within=300)
    await here.ready(frozen)


async def _last_words(world: World) -> None:
    """The newest snapshot of a job that has ended says so: no zombie spoke after its end."""
    ended, last = set(world.oracle.acknowledged), dict[str, str]()

    def take(message: Any) -> None:
        if message.value is not None:
            told = json.loads(message.value)
            last[told["job_id"]] = told["status"]

    await world.watch.end_of(ended, 60)
    deadline = time.monotonic() + 60
    while True:
        await outside.all_of(world.installation.stack.direct.kafka_bootstrap, topics.STATUS, take)
        wrong = {j: last.get(j, "nothing") for j in ended if last.get(j) not in _LAST}
        if not wrong:
            return
        # the completed event goes first, the last word follows
        if time.monotonic() > deadline:
            break
        await world.watch.any_change(0.5)
    for job_id, said in sorted(wrong.items()):
        world.figures.lose(f"the newest snapshot of {job_id} says {said}")


async def _group_has(bootstrap: str, group: str, members: int, within: float = 120) -> None:
    """Wait until a consumer group is stable with so many members, or fewer."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    seen = ""
    try:
        async with asyncio.timeout(within):
            while True:
                with contextlib.suppress(KafkaError):
                    (answer,) = await admin.describe_consumer_groups([group])
                    _, _, state, _, _, found, *_ = answer.groups[0]
                    seen = f"{state}, {len(found)} members"
                    if state == "Stable" and len(found) <= members:
                        return
                # nothing announces a rebalance
                await asyncio.sleep(0.3)
    except TimeoutError:
        raise AssertionError(f"{group}: {seen}; {members} were awaited") from None
    finally:
        await admin.close()
