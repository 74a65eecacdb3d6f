"""Derived state is lost in the middle of jobs: tables, the read model, caches, and all topics."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient

from chaos import outside
from chaos.jobs import Door, JobPlan
from chaos.world import Needs, World
from frond.contracts import keys, topics
from frond.store import ObjectStore

NAME: Final = "derived"
ABOUT: Final = (
    "the aggregators' changelog topics and folders, the read model's database, every cache, and "
    "at last all topics are deleted during jobs"
)
NEEDS: Final = Needs(workers={"aggregator": 2})

_CHANGELOGS: Final = ("frond.aggregator-images-changelog", "frond.aggregator-jobs-changelog")
_STALL_S: Final = "10"
_CLOCKS: Final = timedelta(minutes=2)
"""A job that came by topic begins when its first event was sent; the store knows when it was read."""

Answers = dict[str, Any]


async def run(world: World) -> None:
    """Each loss once; in a long run the first three again and again until half of the time is over."""
    steps = (_tables, _database, _caches)
    for step in steps:
        await step(world)
    while not world.short and world.time_left > 120:
        await world.rng.choice(steps)(world)
    await _topics(world)
    await world.ended()


async def _tables(world: World) -> None:
    """Changelog topics and local state are gone while the aggregators are down."""
    here = world.installation
    plan = world.feeder.big(20 if world.short else 200)
    await world.feeder.submit(plan)
    await world.progress(topics.IMAGED, world.rng.randint(1, len(plan.images) // 2))
    names = here.names("aggregator")
    here.stop(*names)
    admin = AIOKafkaAdminClient(bootstrap_servers=here.stack.direct.kafka_bootstrap)
    await admin.start()
    try:
        there = await admin.list_topics()
        gone = [t for t in _CHANGELOGS if t in there]
        await admin.delete_topics(gone)
    finally:
        await admin.close()
    await asyncio.to_thread(shutil.rmtree, here.folder / "cache" / "faust", True)
    world.fault("tables", topics=gone)
    # what the tables had counted is committed: the reconciler counts it again, from the store
    world.robbed.add(plan.job_id)
    patience, here.env["FROND_STALL_S"] = here.env["FROND_STALL_S"], _STALL_S
    here.start(*names)
    await here.ready(*names)
    await world.ended([plan.job_id])
    # and helps nobody else
    here.stop(*names)
    here.env["FROND_STALL_S"] = patience
    here.start(*names)
    await here.ready(*names)


async def _database(world: World) -> None:
    """The read model is deleted while ingest is down: the topics, and objects, have it all."""
    here = world.installation
    done = world.feeder.next()
    await world.feeder.submit(done)
    await world.ended([done.job_id])
    before = await _told(world, world.watch.ended & world.oracle.acknowledged)
    plan = world.feeder.big(10 if world.short else 100)
    await world.feeder.submit(plan)
    await world.progress(topics.IMAGED, 1)
    names = here.names("ingest")
    here.stop(*names)
    _delete_databases(world)
    here.start(*names)
    await here.ready(*names)
    await _the_same(world, before)
    await world.ended([plan.job_id])


async def _caches(world: World) -> None:
    """Every cache folder is emptied, under running services first, then while they are down."""
    here = world.installation
    plan = world.feeder.big(20 if world.short else 100)
    await world.feeder.submit(plan)
    for down in (False, True):
        await world.progress(topics.IMAGED, 1)
        if down:
            here.stop(*here.names())
        for folder in sorted((here.folder / "cache").iterdir()):
            await asyncio.to_thread(shutil.rmtree, folder, True)
        world.fault("caches", down=down)
        if down:
            here.start(*here.names())
    await here.ready()
    await world.ended([plan.job_id])


async def _topics(world: World) -> None:
    """A broker that has nothing, an empty database, empty caches: objects alone.

    What only a topic ever held is its publisher's to send again, so jobs of that door have been
    read by then; of all others not even that.
    """
    here, feeder = world.installation, world.feeder
    for door in Door:
        await feeder.submit(feeder.next(door=door))
    # of this one, the webhook is not sent yet
    here.stop(*here.names("notifier"))
    await feeder.submit(feeder.next(door=Door.PUT, bad=0))
    await world.ended()
    before = await _told(world, world.watch.ended & world.oracle.acknowledged)

    images = 4 if world.short else 40
    doors = (Door.PUT, Door.TOPIC_SEAL) if world.short else Door
    planned = [feeder.next(door=d, images=images, side=512, bad=0) for d in doors]
    for plan in planned:
        await feeder.submit(plan)
    await world.progress(topics.DETECTED, 2)
    here.stop(*here.names("inference"))
    await _until(world, lambda store: _all_planned(store, planned), "every image planned")
    here.stop(*here.names("tiler"))
    recorded = [feeder.next(door=d, images=images) for d in (Door.PUT, Door.PREFIX)]
    for plan in recorded:
        await feeder.submit(plan)
    half = await _half_a_job(world)

    here.stop(*here.names())
    bootstrap = here.stack.direct.kafka_bootstrap
    world.copies_before = await outside.completed_copies(bootstrap)
    world.rubbish.judge(world.figures, await outside.dead_letters(bootstrap))
    world.rubbish.begin_anew()
    # what was on its way to its end has not got there, or was seen
    await world.ended(world.copies_before.keys() & world.oracle.acknowledged)
    here.stop("kafka")
    await asyncio.to_thread(shutil.rmtree, here.stack.kafka.data / "logs")
    _delete_databases(world)
    await asyncio.to_thread(shutil.rmtree, here.folder / "cache", True)
    # what was on its way is gone for good: these jobs go on only when the reconciler looks at them
    world.robbed |= {p.job_id for p in (*planned, *recorded, half)}
    here.env["FROND_STALL_S"] = _STALL_S
    world.watch.begin_anew()
    world.fault("topics")
    here.start("kafka")
    await here.ready("kafka")
    here.start(*here.names())
    await here.ready()
    await feeder.submit(half)
    await world.ended([p.job_id for p in (*planned, *recorded, half)])
    await _the_same(world, before)
    await world.feeder.submit(after := feeder.next())
    await world.ended([after.job_id])
    shown = await _jobs(world)
    for job_id in world.oracle.acknowledged - shown.keys():
        world.figures.lose(f"GET /jobs does not list {job_id}")


async def _half_a_job(world: World) -> JobPlan:
    """A job that a client has begun, with one image; the client comes back later."""
    plan = world.feeder.next(door=Door.PUT, images=3, webhook=False)
    await asyncio.to_thread(world.oracle.submitting, plan)
    await world.feeder.ask("POST", "/jobs", json={"job_id": plan.job_id})
    picture = plan.images[0]
    await world.feeder.ask(
        "PUT", f"/jobs/{plan.job_id}/images/{picture.name}", content=picture.data()
    )
    return plan


async def _all_planned(store: ObjectStore, plans: list[JobPlan]) -> bool:
    """Whether the store knows each of these images as more than an event."""
    for plan in plans:
        wanted = [keys.image_plan(plan.job_id, plan.image_id(p)) for p in plan.images]
        for key in (keys.job_sealed(plan.job_id), *wanted):
            if not await store.exists(key):
                return False
    return True


async def _until(
    world: World, look: Callable[[ObjectStore], Awaitable[bool]], what: str, within: float = 180
) -> None:
    store = world.installation.store()
    try:
        async with asyncio.timeout(within):
            while not await look(store):
                await world.watch.any_change(0.5)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {within:.0f} s") from None
    finally:
        store.close()


def _delete_databases(world: World) -> None:
    for file in world.installation.folder.glob("ingest*.sqlite*"):
        file.unlink()
    world.fault("database")


# -- what REST answers -----------------------------------------------------------------------------


async def _jobs(world: World) -> Answers:
    """Every job that is listed."""
    found: Answers = {}
    path = "/jobs?limit=100"
    while True:
        page = (await world.feeder.ask("GET", path)).json()
        found |= {j["job_id"]: j for j in page["jobs"]}
        if not page["next_cursor"]:
            return found
        path = f"/jobs?limit=100&cursor={page['next_cursor']}"


async def _told(world: World, job_ids: set[str]) -> Answers:
    """What REST says of jobs that have ended, once it knows that they and their images have: it is told
    of each by another topic."""

    async def one(job_id: str) -> Any:
        while True:
            job = (await world.feeder.ask("GET", f"/jobs/{job_id}")).json()
            images = (await world.feeder.ask("GET", f"/jobs/{job_id}/images?limit=1000")).json()
            if _ended(job, images["images"]):
                break
            await world.watch.any_change(0.5)
        results = (await world.feeder.ask("GET", f"/jobs/{job_id}/results")).json()
        return {"job": job, "images": images["images"], "results": results["results"]}

    async with asyncio.timeout(120):
        return {job_id: await one(job_id) for job_id in sorted(job_ids)}


def _ended(job: Mapping[str, Any], images: Sequence[Mapping[str, Any]]) -> bool:
    if job["status"] == "dismissed":
        return True
    ended = sum(image["status"] in ("completed", "failed") for image in images)
    return job["status"] in ("successful", "failed") and ended == job["images"]["expected"]


async def _the_same(world: World, before: Answers) -> None:
    """Wait until REST answers as before; what differs at last is lost."""
    after: Answers = {}
    wrong: list[str] = sorted(before)
    for _ in range(60):
        listed = await _jobs(world)
        after |= await _told(world, {j for j in wrong if j in listed})
        wrong = [j for j in wrong if j not in listed or not _equal(before[j], after.get(j))]
        if not wrong:
            return
        await world.watch.any_change(1.0)
    for job_id in wrong:
        world.figures.lose(
            f"REST answers otherwise of {job_id}: {json.dumps(before[job_id])[:2000]} ≠ "
            f"{json.dumps(after.get(job_id))[:2000]}"
        )


def _equal(one: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    if other is None:
        return False
    began = [datetime.fromisoformat(a["job"]["created"]) for a in (one, other)]
    if abs(began[0] - began[1]) > _CLOCKS:
        return False
    return _but_created(one) == _but_created(other)


def _but_created(answers: Mapping[str, Any]) -> Answers:
    return {**answers, "job": {k: v for k, v in answers["job"].items() if k != "created"}}
