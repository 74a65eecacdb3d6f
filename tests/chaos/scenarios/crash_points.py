"""SIGKILL between each pair of effects of each service, twice in a row.

The services go through their points side by side, each one point at a time: both tokens are laid
out, and the next point's turn comes when both have killed. Jobs flow all the while; a point
that they do not pass gets what it needs, again and again, until it has fired.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from chaos.guests import Guests
from chaos.jobs import Door
from chaos.world import World
from frond.contracts import keys, topics
from frond.contracts.topics import Topic
from frond.runtime.crashpoints import FIRED, POINTS

NAME: Final = "crash_points"
ABOUT: Final = (
    "SIGKILL at each named point between two effects (object written, event sent, offset committed,"
    " state changed, rows committed, webhook posted), twice in a row"
)

SHORT: Final = (
    "ingest.inputs-recorded", "ingest.seal-stored", "tiler.plan-stored", "tiler.chunks-sent",
    "inference.result-stored", "inference.sent", "aggregator.outcome-stored",
    "aggregator.roster-stored", "aggregator.completed-stored", "aggregator.completed-sent",
    "notifier.attempt-claimed", "notifier.posted",
)  # fmt: skip
"""The points of the short matrix, once each: those that a job's end hangs on most."""

_SIDE_BY_SIDE: Final = (("ingest",), ("tiler",), ("inference",), ("notifier", "aggregator"))
_WITHIN_S: Final = 600.0
_OPEN: Final = 1
_PAUSE_S: Final = 3.0
_LOOK_S: Final = 0.3
_AGAIN_S: Final = 15.0
_RUBBISH: Final = b"\x00 no event"

Need = Callable[["_Trouble"], Awaitable[object]]


async def run(world: World) -> None:
    """Fire every point; then everything that was submitted must end."""
    world.dead_letters = not world.short
    trouble = _Trouble(world)
    wanted = _chosen() or (SHORT if world.short else tuple(POINTS))

    async def through(*services: str) -> None:
        for service in services:
            await trouble.through([p for p in wanted if p.startswith(f"{service}.")])

    async with _jobs_flow(world):
        # the notifier has nothing to do while the aggregator keeps dying
        await asyncio.gather(*(through(*side) for side in _SIDE_BY_SIDE))
    await world.installation.ready()
    await world.ended()
    await trouble.guests.check()


def _chosen() -> tuple[str, ...]:
    """The points named in POINTS, for replaying a failure: ``POINTS=tiler.,ingest.swept``."""
    named = tuple(n for n in os.environ.get("POINTS", "").split(",") if n)
    return tuple(p for p in POINTS if p.startswith(named)) if named else ()


class _Trouble:
    def __init__(self, world: World) -> None:
        self.world = world
        self.guests = Guests(world)
        self.folder = world.installation.crash_points

    async def through(self, points: list[str]) -> None:
        """Each of these points in turn, twice in a row; in the short matrix once.

        A point that does not fire within its time counts as a loss.
        """
        times = 1 if self.world.short else 2
        for point in points:
            began = time.monotonic()
            enough = asyncio.Event()
            need = asyncio.create_task(self._again_and_again(point, enough))
            try:
                await self._fire(point, times)
                self.world.figures.crash_points += 1
            except AssertionError as e:
                self.world.figures.lose(str(e))
            finally:
                enough.set()
                # to its end: half a submission would leave an open job
                await need
            took = round(time.monotonic() - began, 1)
            self.world.oracle.note("crash point", point=point, took=took)
            self.world.say(f"{point}: {took} s")

    async def _fire(self, point: str, times: int) -> None:
        tokens = [f"{point}.{n}" for n in range(1, times + 1)]
        for token in tokens:
            (self.folder / token).touch()
        counted = 0
        end = time.monotonic() + _WITHIN_S
        while counted < times:
            if time.monotonic() > end:
                for token in tokens:
                    (self.folder / token).unlink(missing_ok=True)
                raise AssertionError(
                    f"crash point {point} fired {counted} times of {times} in {_WITHIN_S:.0f} s"
                )
            # a process that kills itself tells nobody where
            await asyncio.sleep(_LOOK_S)
            fired = sum((self.folder / FIRED / t).exists() for t in tokens)
            for _ in range(fired - counted):
                self._count(point)
            counted = fired

    def _count(self, point: str) -> None:
        figures = self.world.figures
        figures.kills += 1
        figures.killed[point.partition(".")[0]] += 1
        figures.points[point] += 1
        self.world.oracle.note("kill", point=point)

    def fired(self, point: str) -> int:
        return self.world.figures.points[point]

    async def _again_and_again(self, point: str, enough: asyncio.Event) -> None:
        need = NEEDS_OF.get(point) or _FLOW[point.partition(".")[0] == "ingest"]
        while not enough.is_set():
            try:
                await need(self)
            except (AssertionError, OSError) as e:
                self.world.oracle.note("need failed", point=point, error=repr(e))
            # the pipeline has it now; once more only if the point was passed by others' tokens
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(enough.wait(), _AGAIN_S)

    # -- what only this scenario makes happen -------------------------------------------------------

    async def arm_once(self, point: str) -> Callable[[], bool]:
        """One more token of a point besides those of its own turn; the result tells whether it fired."""
        token = f"{point}.9{time.monotonic_ns()}"
        (self.folder / token).touch()

        def fired() -> bool:
            if (self.folder / FIRED / token).exists():
                self._count(point)
                return True
            (self.folder / token).unlink(missing_ok=True)
            return False

        return fired

    async def never_sent(self) -> None:
        """An image that was recorded and not sent, by a client that waits for the sweeper."""
        job_id = await self.guests.begun()
        fired = await self.arm_once("ingest.inputs-recorded")
        await self.guests.put(job_id, once=True)
        fired()
        # by then the sweeper has had its turns
        await self._seen_by_rest(job_id)
        await self.guests.put(job_id)
        await self.guests.seal(job_id, 1)

    async def _seen_by_rest(self, job_id: str, within: float = 20) -> None:
        end = time.monotonic() + within
        while time.monotonic() < end:
            answer = await self.guests.ask("GET", f"/jobs/{job_id}/images")
            if answer.json()["images"]:
                return
            await self.world.watch.any_change(0.5)

    async def cancel_never_sent(self) -> None:
        """A cancellation that was stored and not sent, by a client that never comes back."""
        job_id = await self.guests.begun()
        await self.guests.put(job_id)
        fired = await self.arm_once("ingest.cancel-stored")
        answered = await self.guests.try_once("POST", f"/jobs/{job_id}/cancel")
        if fired() or answered:
            self.guests.expected[job_id] = None
            # ingest must be back before the reconciler ends the job by itself
            await self.world.installation.ready(*self.world.installation.names("ingest"))
            await self._fires("ingest.cancel-swept")
        else:
            await self.guests.seal(job_id, 1)

    async def many_chunks(self) -> None:
        """An image of several batches; its job is cancelled once the point has fired."""
        job_id = await self.guests.many_chunks()
        await self._fires("tiler.batch-sent", 2, 60)
        await self.guests.drop(job_id)

    async def _fires(self, point: str, more: int = 1, within: float = 15) -> None:
        """Wait until a point has fired again, or the time is over."""
        wanted, end = self.fired(point) + more, time.monotonic() + within
        while self.fired(point) < wanted and time.monotonic() < end:
            await self.world.watch.any_change(_LOOK_S)

    async def lost_chunks(self) -> None:
        """A job whose chunks are lost: inference's offsets are set past them while it is down."""
        here = self.world.installation
        names = here.names("inference")
        here.stop(*names)
        try:
            # while nobody is in the group, anybody may commit for it
            await asyncio.sleep(float(here.env["FROND_SESSION_TIMEOUT_S"]) + 1)
            plan = self.world.feeder.next(door=Door.TOPIC_SIZE, images=1, side=1300, bad=0)
            await self.world.feeder.submit(plan)
            await self.world.progress(topics.TILED, 1)
            store = here.store()
            image = plan.image_id(plan.images[0])
            while not await store.exists(keys.image_plan(plan.job_id, image)):
                await self.world.watch.any_change(0.3)
            store.close()
            await asyncio.sleep(1.0)
            await _skip_to_end(here.stack.direct.kafka_bootstrap, "frond.inference", topics.TILED)
            self.world.fault("offsets", group="frond.inference")
        finally:
            here.start(*names)
        await self.world.watch.end_of([plan.job_id], 120)

    async def rubbish(self, topic: Topic) -> None:
        """A message that is no event."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.world.installation.stack.direct.kafka_bootstrap
        )
        await producer.start()
        try:
            await producer.send_and_wait(topic.name, _RUBBISH, key=b"rubbish")
        finally:
            await producer.stop()


async def _skip_to_end(bootstrap: str, group: str, topic: Topic) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False
    )
    await consumer.start()
    try:
        parts = [TopicPartition(topic.name, p) for p in range(topic.partitions)]
        consumer.assign(parts)
        await consumer.commit(await consumer.end_offsets(parts))
    finally:
        await consumer.stop()


def _guest(name: str) -> Need:
    return lambda trouble: getattr(trouble.guests, name)()


def _rubbish(topic: Topic) -> Need:
    return lambda trouble: trouble.rubbish(topic)


NEEDS_OF: Final[dict[str, Need]] = {
    "ingest.answer-kept": _guest("form"),
    "ingest.piece-written": _guest("form"),
    "ingest.form-stored": _guest("form"),
    "ingest.manifest-stored": _guest("form"),
    "ingest.input-recorded": _guest("form_into_open"),
    "ingest.parts-joined": _guest("parts"),
    "ingest.retry-spec-stored": _guest("retried"),
    "ingest.retry-manifest-stored": _guest("retried"),
    "ingest.refused-recorded": _guest("refused"),
    "ingest.refused-sent": _guest("refused"),
    "ingest.cancel-stored": _guest("cancelled"),
    "ingest.cancel-sent": _guest("cancelled"),
    "ingest.tombstone-stored": _guest("deleted"),
    "ingest.job-deleted": _guest("deleted"),
    "ingest.status-cleared": _guest("deleted"),
    "ingest.swept": lambda trouble: trouble.never_sent(),
    "ingest.cancel-swept": lambda trouble: trouble.cancel_never_sent(),
    "tiler.seal-stored": _guest("sealed_on_topic"),
    "tiler.cancel-stored": _guest("cancelled"),
    "tiler.spec-completed": _guest("told_late"),
    "tiler.cog-stored": _guest("wide"),
    "tiler.batch-sent": lambda trouble: trouble.many_chunks(),
    "tiler.ledger-told": _rubbish(topics.UPLOADED),
    "tiler.buried": _rubbish(topics.UPLOADED),
    "inference.buried": _rubbish(topics.TILED),
    "aggregator.failure-noted": _guest("broken"),
    "aggregator.chunk-counted": _guest("several_chunks"),
    "aggregator.image-forgotten": _guest("several_chunks"),
    "aggregator.buried": _rubbish(topics.DETECTED),
    "aggregator.redriven": lambda trouble: trouble.lost_chunks(),
    "notifier.buried": _rubbish(topics.COMPLETED),
}
"""What makes a point's turn come, where jobs of the usual kinds do not pass it."""
_FLOW: Final = {True: _guest("by_rest"), False: _guest("by_topic")}


@contextlib.asynccontextmanager
async def _jobs_flow(world: World) -> AsyncIterator[None]:
    """Small jobs, by REST and by the topic side by side: one door stands still while ingest does."""
    stop = asyncio.Event()
    flows = [
        asyncio.create_task(_submit(world, stop, (Door.PUT, Door.PREFIX))),
        asyncio.create_task(_submit(world, stop, (Door.TOPIC_SIZE, Door.TOPIC_SEAL))),
    ]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*flows)


async def _submit(world: World, stop: asyncio.Event, doors: tuple[Door, ...]) -> None:
    mine: set[str] = set()
    count = 0
    while not stop.is_set():
        if len(mine - world.watch.ended) >= _OPEN:
            await world.watch.any_change(1.0)
            continue
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _PAUSE_S)
        plan = world.feeder.next(door=doors[count % len(doors)])
        count += 1
        await world.feeder.submit(plan)
        mine.add(plan.job_id)
