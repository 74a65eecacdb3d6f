"""The consumer loop on the real broker."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from frond.bus import DeadLetter, EventProducer, Outgoing, consume, metrics
from frond.contracts import topics
from frond.contracts.envelope import Envelope, decode
from frond.contracts.errors import StoreUnavailable
from frond.contracts.events import ImageUploaded, JobSealed
from frond.runtime import Service, ServiceSettings

pytestmark = pytest.mark.stack


class Running:
    """A service that copies job seals from uploaded to detected."""

    def __init__(self, settings: ServiceSettings, handler: Any) -> None:
        self.service = Service("copier", settings)
        self.producer = EventProducer(settings.kafka_bootstrap, settings.topic_prefix, "/copier")
        self.handler = handler
        self.hooks: dict[str, Any] = {}

    async def __aenter__(self) -> Running:
        await self.producer.start()
        self.task = asyncio.create_task(
            consume(
                self.service,
                topics.UPLOADED,
                self.handler,
                producer=self.producer,
                concurrency=8,
                **self.hooks,
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.service.stop.set()
        await asyncio.wait_for(self.task, 120)
        await self.producer.stop()


async def send(settings: ServiceSettings, *values: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap)
    await producer.start()
    for i, value in enumerate(values):
        await producer.send_and_wait(
            topics.UPLOADED.named(settings.topic_prefix), value, key=str(i).encode()
        )
    await producer.stop()


async def collect(settings: ServiceSettings, topic: topics.Topic, count: int) -> list[Any]:
    consumer = AIOKafkaConsumer(
        topic.named(settings.topic_prefix),
        bootstrap_servers=settings.kafka_bootstrap,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    got = []
    async with asyncio.timeout(150):
        async for message in consumer:
            got.append(message)
            if len(got) >= count:
                break
    await consumer.stop()
    return got


async def copying(envelope: Envelope) -> Sequence[Outgoing]:
    return [Outgoing(topics.DETECTED, envelope.event)]


def seal(i: int) -> bytes:
    return JobSealed(job_id=f"job-{i}", job_size=i).model_dump_json().encode()


async def test_every_event_is_handled_and_committed(settings: ServiceSettings) -> None:
    """200 events arrive downstream, and a second run has none of them left to do."""
    await send(settings, *(seal(i) for i in range(200)))
    async with Running(settings, copying):
        got = await collect(settings, topics.DETECTED, 200)
    jobs = {decode(topics.DETECTED, m.value, m.headers).event.job_id for m in got}
    assert jobs == {f"job-{i}" for i in range(200)}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap, group_id=settings.group("copier")
    )
    await consumer.start()
    name = topics.UPLOADED.named(settings.topic_prefix)
    parts = [TopicPartition(name, p) for p in range(topics.UPLOADED.partitions)]
    ends = await consumer.end_offsets(parts)
    committed = {p: (await consumer.committed(p)) or 0 for p in parts}
    await consumer.stop()
    assert committed == ends


async def test_a_poison_message_stops_nothing(settings: ServiceSettings) -> None:
    """Bytes that are no event become a dead letter with where and why; the others go through."""
    await send(settings, seal(1), b"\x00\xff", b'{"job_id": 1}', seal(2))
    async with Running(settings, copying):
        await collect(settings, topics.DETECTED, 2)
        dead = await collect(settings, topics.DEADLETTER, 2)
    letters = [DeadLetter.from_message(m.key, m.value, list(m.headers)) for m in dead]
    assert {letter.value for letter in letters} == {b"\x00\xff", b'{"job_id": 1}'}
    assert {letter.topic for letter in letters} == {"frond.uploaded.v1"}
    assert all(letter.reason == "bad-request" and letter.detail for letter in letters)
    assert {letter.attempts for letter in letters} == {1}


async def test_an_outage_is_waited_out(settings: ServiceSettings) -> None:
    """A handler that finds the store away is called again until it is back; no dead letter."""
    calls = 0

    async def flaky(envelope: Envelope) -> Sequence[Outgoing]:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise StoreUnavailable("away")
        return [Outgoing(topics.DETECTED, envelope.event)]

    await send(settings, seal(1))
    async with Running(settings, flaky):
        await collect(settings, topics.DETECTED, 1)
    assert calls == 4


async def test_a_handler_that_fails_is_not_asked_for_ever(settings: ServiceSettings) -> None:
    """Three tries, then a dead letter with the trace id; the next event is handled."""
    calls = 0

    async def broken(envelope: Envelope) -> Sequence[Outgoing]:
        nonlocal calls
        if isinstance(envelope.event, ImageUploaded):
            calls += 1
            raise KeyError("a bug")
        return [Outgoing(topics.DETECTED, envelope.event)]

    image = ImageUploaded(job_id="x", image="s3://bucket/k.tif").model_dump_json().encode()
    await send(settings, image, seal(1))
    async with Running(settings, broken):
        await collect(settings, topics.DETECTED, 1)
        (dead,) = await collect(settings, topics.DEADLETTER, 1)
    letter = DeadLetter.from_message(dead.key, dead.value, list(dead.headers))
    assert (calls, letter.attempts, letter.reason) == (3, 3, "internal")
    assert len(letter.trace_id) == 32


async def test_two_workers_share_and_take_over(settings: ServiceSettings) -> None:
    """A worker that joins and one that leaves lose no event of 300."""
    await send(settings, *(seal(i) for i in range(150)))
    async with Running(settings, copying):
        await collect(settings, topics.DETECTED, 20)
        async with Running(settings, copying):
            await send(settings, *(seal(i) for i in range(150, 300)))
            await collect(settings, topics.DETECTED, 200)
    async with Running(settings, copying):
        jobs: set[str] = set()
        consumer = AIOKafkaConsumer(
            topics.DETECTED.named(settings.topic_prefix),
            bootstrap_servers=settings.kafka_bootstrap,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        async with asyncio.timeout(150):
            async for m in consumer:
                jobs.add(decode(topics.DETECTED, m.value, m.headers).event.job_id)
                if len(jobs) == 300:
                    break
        await consumer.stop()


async def test_the_largest_garbage_still_fits_its_dead_letter(settings: ServiceSettings) -> None:
    """A message as large as the topic takes is buried whole, and the next one is handled."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, max_request_size=2 << 20
    )
    await producer.start()
    name = topics.UPLOADED.named(settings.topic_prefix)
    await producer.send_and_wait(name, b"\xff" * 1_048_300, partition=0)
    await producer.send_and_wait(name, seal(1), partition=0)
    await producer.stop()
    async with Running(settings, copying):
        await collect(settings, topics.DETECTED, 1)
        (dead,) = await collect(settings, topics.DEADLETTER, 1)
    assert len(dead.value) == 1_048_300


async def test_a_ledger_hears_of_what_could_not_be_read_or_handled(
    settings: ServiceSettings,
) -> None:
    """Both hooks' events are sent besides the dead letter."""

    async def unreadable(value: bytes | None, headers: Any, error: Exception) -> Sequence[Outgoing]:
        return [Outgoing(topics.DETECTED, JobSealed(job_id="unreadable", job_size=0))]

    async def give_up(envelope: Envelope, error: Exception) -> Sequence[Outgoing]:
        return [Outgoing(topics.DETECTED, JobSealed(job_id="given-up", job_size=0))]

    async def broken(envelope: Envelope) -> Sequence[Outgoing]:
        raise KeyError("a bug")

    await send(settings, b"{}", seal(1))
    running = Running(settings, broken)
    running.hooks = {"unreadable": unreadable, "give_up": give_up}
    async with running:
        got = await collect(settings, topics.DETECTED, 2)
        await collect(settings, topics.DEADLETTER, 2)
    jobs = {decode(topics.DETECTED, m.value, m.headers).event.job_id for m in got}
    assert jobs == {"unreadable", "given-up"}


async def test_what_has_a_turn_lies_evenly(settings: ServiceSettings) -> None:
    """Forty events of any keys that take turns: as many on each partition."""
    producer = EventProducer(settings.kafka_bootstrap, settings.topic_prefix, "/copier")
    await producer.start()
    event = JobSealed(job_id="one", job_size=1)
    sent = await producer.send([Outgoing(topics.UPLOADED, event, turn=n) for n in range(40)])
    await producer.stop()
    assert Counter(s.partition for s in sent) == dict.fromkeys(range(8), 5)


async def read_ahead(count: int) -> None:
    """Wait until so many events were read and wait their turn."""
    async with asyncio.timeout(150):
        while metrics.AHEAD.labels(topics.UPLOADED.name)._value.get() < count:  # noqa: ASYNC110 # a gauge
            await asyncio.sleep(0.05)


async def test_a_small_job_behind_a_big_one_has_its_turns(settings: ServiceSettings) -> None:
    """Of 400 events of one job with 5 of another behind them, the 5 are handled among the first
    20; and with all of them handled, all is committed."""
    big = [JobSealed(job_id="big", job_size=i).model_dump_json().encode() for i in range(400)]
    small = [JobSealed(job_id="small", job_size=i).model_dump_json().encode() for i in range(5)]
    await send(settings, *big, *small)
    order: list[str] = []
    gate = asyncio.Event()

    async def handler(envelope: Envelope) -> Sequence[Outgoing]:
        await gate.wait()
        order.append(envelope.event.job_id)
        return [Outgoing(topics.DETECTED, envelope.event)]

    running = Running(settings, handler)
    async with running:
        # all is read while the first few are held up: then order is the queue's alone
        await read_ahead(405 - 8)
        gate.set()
        await collect(settings, topics.DETECTED, 405)
    assert len(order) == 405
    assert [i for i, job in enumerate(order) if job == "small"][-1] < 8 + 2 * 5 + 2


async def test_a_held_job_waits_and_nothing_else_does(settings: ServiceSettings) -> None:
    """While a job is held back another one passes it; released, it is handled too."""
    holding = True
    await send(settings, *(seal(1) for _ in range(50)), seal(2))
    running = Running(settings, copying)
    running.hooks = {"held": lambda job: holding and job == "job-1"}
    async with running:
        (first,) = await collect(settings, topics.DETECTED, 1)
        assert decode(topics.DETECTED, first.value, first.headers).event.job_id == "job-2"
        holding = False
        await collect(settings, topics.DETECTED, 51)


async def test_no_more_is_read_ahead_than_may_be(settings: ServiceSettings) -> None:
    """With everything held back a consumer reads its look-ahead and no more; then it goes on."""
    small = settings.model_copy(update={"lookahead": 80})
    await send(settings, *(seal(1) for _ in range(600)))
    holding, turns, turned = True, 0, asyncio.Event()

    def held(_: str) -> bool:
        nonlocal turns
        turns += 1
        if turns == 10:
            turned.set()
        return holding

    running = Running(small, copying)
    running.hooks = {"held": held}
    async with running:
        await read_ahead(80)
        turns = 0
        turned.clear()
        # the loop has come by so many more times, and could have read
        await turned.wait()
        assert metrics.AHEAD.labels(topics.UPLOADED.name)._value.get() == 80
        holding = False
        await collect(settings, topics.DETECTED, 600)


async def test_work_ends_before_what_it_works_with(settings: ServiceSettings) -> None:
    """When the loop breaks off, what was in flight has ended by then: its store and producer are
    closed next, and it would take that for a fault of its event."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handler(_: Envelope) -> Sequence[Outgoing]:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return []

    def held(_: str) -> bool:
        if begun.is_set():
            raise KeyError("a bug")
        return False

    await send(settings, seal(1))
    running = Running(settings, handler)
    running.hooks = {"held": held}
    async with running:
        await begun.wait()
        await send(settings, seal(2))
        with pytest.raises(KeyError, match="a bug"):
            await asyncio.wait_for(asyncio.shield(running.task), 60)
        assert ended.is_set()
        running.task = asyncio.create_task(asyncio.sleep(0))
