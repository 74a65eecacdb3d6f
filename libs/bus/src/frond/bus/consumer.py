"""The consumer loop of every service but the aggregator.

At least once: an offset is committed only when it and all before it are done. Heartbeats run on
the event loop and never wait for work. Work is bounded. At a rebalance, work on partitions that
are gone is dropped: whoever has them now does it again, under the same names.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from frond.bus import metrics
from frond.bus.deadletter import DeadLetter, now
from frond.bus.producer import EventProducer, Outgoing
from frond.bus.progress import PROBE_EVERY_S, Progress
from frond.bus.tracker import CommitTracker
from frond.contracts import topics
from frond.contracts.envelope import Envelope, Headers, decode
from frond.contracts.errors import BrokerUnavailable, UnreadableEvent
from frond.contracts.reasons import Reason
from frond.contracts.topics import Topic
from frond.runtime import Service, get_logger, wait_out

Handler = Callable[[Envelope], Awaitable[Sequence[Outgoing]]]
Unreadable = Callable[[bytes | None, Headers, UnreadableEvent], Awaitable[Sequence[Outgoing]]]
GiveUp = Callable[[Envelope, Exception], Awaitable[Sequence[Outgoing]]]

_COMMIT_EVERY_S: Final = 1.0
_ATTEMPTS: Final = 3
_log = get_logger(__name__)


async def consume(
    service: Service,
    topic: Topic,
    handler: Handler,
    *,
    producer: EventProducer,
    concurrency: int = 4,
    group: str | None = None,
    session_timeout_ms: int = 10_000,
    unreadable: Unreadable | None = None,
    give_up: GiveUp | None = None,
) -> None:
    """Hand every event of a topic to ``handler`` until the service is asked to stop.

    What the handler returns is sent, and acknowledged, before the event's offset can be
    committed. The handler may be called again for an event it has handled. Outages of the broker
    and the store are waited out; a message that is no event, or that the handler fails on three
    times with anything else, goes to the dead-letter topic.

    Args:
        concurrency: how many events are handled at once.
        group: consumer group; ``frond.<service>`` by default.
        unreadable: what else to send for a message that is no event, so that a ledger it was meant
            for can close.
        give_up: what else to send for an event that the handler failed on three times.

    Raises:
        BrokerUnavailable: the broker has not answered for 90 s, or nothing was read for 120 s
            though there is something to read; the process should exit.
    """
    loop = _Loop(service, topic, handler, producer, concurrency)
    loop.unreadable, loop.on_give_up = unreadable, give_up
    await loop.run(group or service.settings.group(service.name), session_timeout_ms)


class _Loop:
    def __init__(
        self,
        service: Service,
        topic: Topic,
        handler: Handler,
        producer: EventProducer,
        concurrency: int,
    ) -> None:
        self.service = service
        self.topic = topic
        self.handler = handler
        self.producer = producer
        self.concurrency = concurrency
        self.slots = asyncio.Semaphore(concurrency)
        self.trackers: dict[Any, CommitTracker] = {}
        self.tasks: dict[TopicPartition, set[asyncio.Task[None]]] = {}
        self.part = f"consuming {topic.name}"
        self.unreadable: Unreadable | None = None
        self.on_give_up: GiveUp | None = None

    async def run(self, group: str, session_timeout_ms: int) -> None:
        health, settings = self.service.health, self.service.settings
        health.expect(self.part, "joining the consumer group")
        self.group = group
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=session_timeout_ms,
            heartbeat_interval_ms=session_timeout_ms // 4,
            # work has its own limits, and heartbeats do not wait for it
            max_poll_interval_ms=24 * 3600 * 1000,
            metadata_max_age_ms=30_000,
        )
        await wait_out(self._start, what=f"starting on {self.topic.name}")
        watch = asyncio.create_task(self._watch())
        try:
            await self._poll(watch)
            await self._drain()
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError, BrokerUnavailable):
                await watch
            # in a task of its own: during an outage aiokafka lets a CancelledError of its own out
            stopping = asyncio.create_task(self.consumer.stop())
            await asyncio.wait({stopping}, timeout=10)

    async def _start(self) -> None:
        try:
            self.consumer.subscribe(
                [self.topic.named(self.service.settings.topic_prefix)], listener=_Rebalance(self)
            )
            await self.consumer.start()
        except (KafkaError, OSError) as e:
            raise BrokerUnavailable(str(e)) from e

    async def _poll(self, watch: asyncio.Task[None]) -> None:
        committed = time.monotonic()
        while not self.service.stop.is_set():
            if watch.done():
                watch.result()
            await self._take()
            if time.monotonic() - committed >= _COMMIT_EVERY_S:
                await self.commit()
                committed = time.monotonic()

    async def _take(self) -> None:
        """Wait for a free slot and for messages, and hand them out; returns within a second."""
        try:
            async with asyncio.timeout(0.5):
                await self.slots.acquire()
        except TimeoutError:
            return
        self.slots.release()
        free = self.concurrency - sum(len(t) for t in self.tasks.values())
        try:
            got = await self.consumer.getmany(timeout_ms=500, max_records=max(1, free))
        except (KafkaError, OSError) as e:
            _log.warning("reading from the broker failed", topic=self.topic.name, error=repr(e))
            await asyncio.sleep(0.5)
            return
        trackers: dict[Any, CommitTracker] = dict(self.trackers)
        for partition, messages in got.items():
            for message in messages:
                await self.slots.acquire()
                tracker = self.trackers.get(partition)
                if tracker is None or tracker != trackers.get(partition):
                    self.slots.release()
                    continue  # revoked while we waited: its owner of now reads it again
                tracker.add(message.offset)
                task = asyncio.create_task(self._handle(tracker, message))
                self.tasks[partition].add(task)
                task.add_done_callback(partial(self._ended, partition))

    def _ended(self, partition: TopicPartition, task: asyncio.Task[None]) -> None:
        self.slots.release()
        self.tasks.get(partition, set()).discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # nothing but a bug in this module ends here; exiting lets the message be read again
            self.service.health.fatal = repr(error)
            _log.error("the consumer loop is broken", exc_info=error)
            self.service.stop.set()

    async def _handle(self, tracker: CommitTracker, message: Any) -> None:
        started = time.monotonic()
        name = self.topic.name
        with metrics.IN_FLIGHT.labels(name).track_inprogress():
            try:
                envelope = decode(self.topic, message.value, message.headers)
            except UnreadableEvent as e:
                if self.unreadable is not None:
                    await self._also(partial(self.unreadable, message.value, _headers(message), e))
                await self._bury(message, Reason.BAD_REQUEST, str(e), "", 0)
            else:
                await self._apply(envelope, message)
        metrics.HANDLING.labels(name).observe(time.monotonic() - started)
        tracker.finish(message.offset)

    async def _apply(self, envelope: Envelope, message: Any) -> None:
        async def once() -> None:
            out = await self.handler(envelope)
            if out:
                await self.producer.send(out, traceparent=envelope.traceparent)

        error: Exception | None = None
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await wait_out(once, what=envelope.event.TYPE)
            except Exception as e:
                error = e
                _log.error(
                    "handling an event failed", attempt=attempt, job_id=envelope.event.job_id,
                    type=envelope.event.TYPE, trace_id=envelope.trace_id, exc_info=e,
                )  # fmt: skip
            else:
                metrics.HANDLED.labels(self.topic.name, envelope.event.TYPE).inc()
                return
        if self.on_give_up is not None and error is not None:
            await self._also(partial(self.on_give_up, envelope, error))
        await self._bury(
            message, Reason.INTERNAL, f"{type(error).__name__}: {error}", envelope.trace_id,
            _ATTEMPTS,
        )  # fmt: skip

    async def _also(self, hook: Callable[[], Awaitable[Sequence[Outgoing]]]) -> None:
        async def once() -> None:
            await self.producer.send(await hook())

        try:
            await wait_out(once, what="closing a ledger")
        except Exception as e:
            _log.error("a ledger could not be told", topic=self.topic.name, exc_info=e)

    async def _bury(
        self, message: Any, reason: Reason, detail: str, trace_id: str, attempts: int
    ) -> None:
        letter = DeadLetter(
            topic=self.topic.name, partition=message.partition, offset=message.offset,
            group=self.group, reason=reason.value, detail=detail, trace_id=trace_id,
            attempts=attempts, time=now(), key=message.key, value=message.value,
            headers=_headers(message),
        )  # fmt: skip
        metrics.DEAD.labels(self.topic.name).inc()
        _log.warning("dead letter", id=letter.id, topic=letter.topic, detail=detail)
        await wait_out(
            lambda: self.producer.send_raw(
                topics.DEADLETTER, letter.key, letter.value, letter.to_headers()
            ),
            what="sending a dead letter",
        )

    async def commit(self) -> None:
        """Commit what is done. A failure is no loss: it will be read and recognised again."""
        offsets = {p: t.committable for p, t in self.trackers.items() if t.committable is not None}
        if not offsets:
            return
        try:
            await asyncio.wait_for(self.consumer.commit(offsets), 10)
        except (CommitFailedError, IllegalStateError) as e:
            _log.warning("a commit came too late", topic=self.topic.name, error=str(e))
        except (KafkaError, OSError, TimeoutError) as e:
            _log.warning("a commit failed", topic=self.topic.name, error=repr(e))

    async def _drain(self) -> None:
        """Finish what is in flight, commit it, and leave."""
        running = [t for tasks in self.tasks.values() for t in tasks]
        if running:
            await asyncio.wait(running, timeout=20)
        for task in running:
            task.cancel()
        await self.commit()

    async def _watch(self) -> None:
        progress = Progress(self.consumer, self.topic.name)
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            wrong = await progress.probe(busy=any(self.tasks.values()))
            if wrong:
                self.service.health.unready(self.part, wrong)
            else:
                self.service.health.ready(self.part)


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka ships no types
    def __init__(self, loop: _Loop) -> None:
        self.loop = loop

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        await self.loop.commit()
        for partition in revoked:
            self.loop.trackers.pop(partition, None)
            for task in self.loop.tasks.pop(partition, set()):
                task.cancel()

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        for partition in assigned:
            self.loop.trackers[partition] = CommitTracker()
            self.loop.tasks[partition] = set()
        self.loop.service.health.ready(self.loop.part)


def _headers(message: Any) -> Headers:
    return [(k, v or b"") for k, v in message.headers]
