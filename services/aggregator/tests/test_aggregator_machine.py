"""A job's events in any order, any number of times, with crashes between any two writes.

The stages are the real ones over a store in memory. Whatever happens, the job ends once, with the
bytes of an undisturbed run.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import Any

import aggregator_world
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from frond.aggregator.closing import Closing
from frond.aggregator.handlers import ImageStage, JobStage
from frond.aggregator.imaging import Imaging
from frond.aggregator.jobs import Tally
from frond.aggregator.reconcile import Reconciler
from frond.aggregator.survey import survey
from frond.bus import EventProducer
from frond.bus.producer import Sent
from frond.contracts import keys, topics
from frond.contracts.envelope import Headers, decode
from frond.contracts.events import JobCompleted, JobSealed
from frond.contracts.jobs import Timings, WindowCounts
from frond.contracts.topics import Topic
from fuzz.memory import MemoryS3, MemoryStore

JOB = "survey-7"
nth = st.integers(0, 10**6)


class Killed(BaseException):
    """SIGKILL, as far as a coroutine can tell."""


class Mortal(MemoryS3):
    """Dies at its n-th effect from now, before or after it is durable."""

    def __init__(self) -> None:
        super().__init__()
        self.left: int | None = None

    def effect(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Killed

    def put_bytes(self, *args: Any, **more: Any) -> Any:
        self.effect()
        done = super().put_bytes(*args, **more)
        self.effect()
        return done

    def remove_object(self, bucket: str, key: str) -> None:
        self.effect()
        super().remove_object(bucket, key)


class Restless(MemoryStore):
    """Lets others go on before each request, for a moment that chance decides."""

    def __init__(self) -> None:
        super().__init__()
        # of its own: an example must go the same way each time
        self.rng = random.Random(0)

    async def _run(self, *args: Any, **more: Any) -> Any:
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)
        return await super()._run(*args, **more)


class Topics(EventProducer):
    def __init__(self, s3: Mortal) -> None:
        super().__init__("", "", "/test")
        self.s3 = s3
        self.log: dict[str, list[tuple[bytes, Headers]]] = {t.name: [] for t in topics.ALL}

    async def send_raw(
        self,
        topic: Topic,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        *,
        turn: int | None = None,
    ) -> Sent:
        self.s3.effect()
        assert value is not None
        self.log[topic.name].append((value, headers))
        self.s3.effect()
        return Sent(0, len(self.log[topic.name]) - 1)


class Installation:
    def __init__(self) -> None:
        self.aio = asyncio.new_event_loop()
        self.store = Restless()
        self.s3 = Mortal()
        self.store.s3 = self.store.memory = self.s3  # type: ignore[assignment]
        self.topics = Topics(self.s3)
        self.tables: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
        self.begin()

    def begin(self) -> None:
        """A process, with whatever the tables hold now."""
        imaging = Imaging(self.store, 1)
        self.closing = Closing(self.store, self.topics, imaging)
        self.images = ImageStage(self.tables[0], imaging, self.topics)
        self.jobs = JobStage(self.tables[1], self.closing)
        self.reconciler = Reconciler(
            None, self.store, self.topics, imaging, self.closing, None,  # type: ignore[arg-type]
            stall_s=0, owns=lambda _: True, idle_s=lambda _: 1.0,
        )  # fmt: skip

    def run(self, work: Any) -> Any:
        return self.aio.run_until_complete(work)

    def handle(self, topic: Topic, at: int) -> None:
        value, headers = self.topics.log[topic.name][at]
        stage = self.images if topic is topics.DETECTED else self.jobs
        self.run(stage.handle(decode(topic, value, headers)))

    def drive(self) -> None:
        """What the reconciler does for a job that stands still."""

        async def work() -> None:
            found = await survey(JOB, self.store.list(keys.job_prefix(JOB)))
            await self.reconciler.drive(JOB, found)

        self.run(work())

    async def detect(self) -> None:
        """Three images: one whole, one with a failed chunk, one turned down; then the seal."""
        world = aggregator_world.World.__new__(aggregator_world.World)
        world.store, world.job_id = self.store, JOB
        ref = keys.model_version(aggregator_world.MODEL.name, aggregator_world.MODEL.digest)
        manifest = aggregator_world.MANIFEST.model_dump_json().encode()
        await self.store.put(ref + "model.yaml", manifest)
        await world.begin()
        events = [*await world.detect(0), *await world.detect(1, failing=[1]), world.rejected(2)]
        events.append(JobSealed(job_id=JOB, job_size=3))
        for event in events:
            await self.topics.send([aggregator_world.Outgoing(topics.DETECTED, event)])

    def calm(self) -> None:
        """Each event of both topics once, in order; and again what that brought."""
        read, both = [0, 0], (topics.DETECTED, topics.IMAGED)
        while any(n < len(self.topics.log[t.name]) for n, t in zip(read, both, strict=True)):
            for i, topic in enumerate(both):
                while read[i] < len(self.topics.log[topic.name]):
                    self.handle(topic, read[i])
                    read[i] += 1

    def hashes(self) -> dict[str, str]:
        """Everything of the job but what holds measured times and traces."""
        return {
            k: hashlib.sha256(v).hexdigest() for k, v in self.store.objects.items()
            if not k.endswith(("completed.json", "completed.headers.json"))
            and not k.startswith("untold/")
        }  # fmt: skip

    def completed(self) -> JobCompleted:
        return JobCompleted.model_validate_json(self.store.objects[keys.job_completed(JOB)])


def _undisturbed() -> tuple[dict[str, str], JobCompleted]:
    calm = Installation()
    calm.run(calm.detect())
    calm.calm()
    calm.aio.close()
    return calm.hashes(), calm.completed()


CALM = _undisturbed()


class Ledger(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.here = Installation()
        self.here.run(self.here.detect())
        # the changelog may be behind: any former state of the tables can come back
        self.former: list[tuple[dict[bytes, bytes], dict[bytes, bytes]]] = [({}, {})]

    def _one(self, topic: Topic, which: int, dies: int | None) -> None:
        log = self.here.topics.log[topic.name]
        if not log:
            return
        self.here.s3.left = dies
        try:
            self.here.handle(topic, which % len(log))
        except Killed:
            self.here.begin()
        self.here.s3.left = None
        self.former.append((dict(self.here.tables[0]), dict(self.here.tables[1])))

    @rule(which=nth, dies=st.none() | st.integers(0, 12))
    def detected(self, which: int, dies: int | None) -> None:
        """An event of a chunk, a rejection or the seal: any, again or not, perhaps half."""
        self._one(topics.DETECTED, which, dies)

    @rule(which=nth, dies=st.none() | st.integers(0, 30))
    def imaged(self, which: int, dies: int | None) -> None:
        self._one(topics.IMAGED, which, dies)

    @rule(seed=nth)
    def zombie(self, seed: int) -> None:
        """Two processes end the job at once, once all of its outcomes are there."""
        for at in range(len(self.here.topics.log[topics.DETECTED.name])):
            self.here.handle(topics.DETECTED, at)
        self.here.store.rng.seed(seed)

        async def end(closing: Closing) -> None:
            size = await closing.size(JOB, 3)
            found = await survey(JOB, self.here.store.list(keys.job_prefix(JOB)))
            await closing.close(
                JOB,
                found.finished,
                size=size,
                cancelled=False,
                timings=Timings(run=self.here.store.rng.random()),
            )

        async def both() -> None:
            other = Closing(self.here.store, self.here.topics, Imaging(self.here.store, 1))
            await asyncio.gather(end(self.here.closing), end(other))

        self.here.run(both())

    @rule(image=nth, job=nth)
    def restart(self, image: int, job: int) -> None:
        """Another process, with tables as they once were, or none."""
        tables = self.here.tables
        for table, old in zip(
            tables, (self.former[image % len(self.former)][0], self.former[job % len(self.former)][1]),
            strict=True,
        ):  # fmt: skip
            table.clear()
            table.update(old)
        self.here.begin()

    @rule(dies=st.none() | st.integers(0, 30))
    def reconcile(self, dies: int | None) -> None:
        self.here.s3.left = dies
        try:
            self.here.drive()
        except Killed:
            self.here.begin()
        self.here.s3.left = None

    @invariant()
    def one_end(self) -> None:
        """However often the completed event was sent, it is one event."""
        assert len({v for v, _ in self.here.topics.log[topics.COMPLETED.name]}) <= 1
        assert len({str(h) for _, h in self.here.topics.log[topics.COMPLETED.name]}) <= 1

    @invariant()
    def sums_are_those_of_the_sets(self) -> None:
        """Each image is counted once, with what its outcome says."""
        stage = self.here.jobs
        buckets = [b for _, b in stage._buckets(JOB)]
        ids = {i.hex() for b in buckets for i in b.completed | b.failed}
        told = [self.here.run(stage.closing.imaging.outcome(JOB, i)) for i in ids]
        for tally in (Tally.over(buckets), stage.tally(JOB)):
            assert tally.images == len(ids)
            assert tally.windows == sum((o.windows for o in told), WindowCounts())
            assert sum(tally.detections.values()) == sum(sum(o.detections.values()) for o in told)

    def teardown(self) -> None:
        """At least once, everything is handled; what was lost with the tables, the reconciler finds."""
        try:
            self.here.calm()
            for _ in range(3):
                if self.here.store.memory.buckets["frond"].get(keys.open_marker(JOB)):
                    self.here.drive()
                    self.here.calm()
            assert self.here.topics.log[topics.COMPLETED.name], "the job never ended"
            self.one_end()
            hashes, event = CALM
            assert self.here.hashes() == hashes
            mine = self.here.completed()
            for name in ("status", "outcome", "images", "windows", "detections", "failures"):
                assert getattr(mine, name) == getattr(event, name), name
            assert [a.sha256 for a in mine.artifacts] == [a.sha256 for a in event.artifacts]
        finally:
            self.here.aio.close()


Ledger.TestCase.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
TestLedger = Ledger.TestCase
