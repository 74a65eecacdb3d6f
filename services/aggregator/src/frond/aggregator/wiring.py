"""The two stages on Faust: topics, tables, agents, and the process's life.

At least once, ``concurrency=1``, acknowledged by hand and last. Partitions are lanes: in order
within one, side by side between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from functools import partial
from typing import Any, Final

import faust
from aiokafka.admin import NewTopic
from aiokafka.partitioner import DefaultPartitioner

from frond.aggregator.closing import SOURCE, Closing
from frond.aggregator.continuity import Continuity
from frond.aggregator.delivery import Deliver, Handle, delivery
from frond.aggregator.gapless import GaplessConsumer
from frond.aggregator.handlers import ImageStage, JobStage
from frond.aggregator.imaging import Imaging
from frond.aggregator.lanes import Lanes
from frond.aggregator.masking import Masking
from frond.aggregator.progress import FaustCrashed, Progress, Still
from frond.aggregator.pulse import Pulse
from frond.aggregator.reconcile import Reconciler
from frond.aggregator.settings import AggregatorSettings
from frond.aggregator.status import StatusBoard
from frond.bus import EventProducer, ensure_topics
from frond.bus.consumer import METADATA_MAX_AGE_MS
from frond.bus.offsets import Offsets
from frond.contracts import topics
from frond.contracts.envelope import Envelope
from frond.contracts.errors import FrondError
from frond.contracts.events import JobEvent
from frond.contracts.topics import Topic
from frond.merge import warm_up
from frond.runtime import Service, crash_point, get_logger, wait_out
from frond.store import ObjectStore, StoreSettings

_PART: Final = "aggregating"
# a partition is read while its lane has fewer messages than this; a long one counts as several, so that
# no lane holds much more than 2 MiB, whatever is on the topic
_QUEUED: Final = 256
_LONG: Final = 8 << 10
# what a poll brings that began just before comes on top
_POLLED: Final = 256
_STOP_S: Final = 8.0
# for so long nothing may happen at the start; recovering tables may take longer, while it gets on
_START_S: Final = 600.0
_CRASHED_S: Final = 2.0
_PROBE_EVERY_S: Final = 10.0
_ACTIVITIES: Final = 10_000
# a value of a table; larger ones would end the app, which would read its event again, and end again
_VALUE_BYTES: Final = 1 << 20
_CHANGELOG: Final = {
    "cleanup.policy": "compact,delete",
    # a record nobody asked for in a month belongs to a job that was deleted or cancelled
    "retention.ms": str(30 * 24 * 3600 * 1000),
    # every write is replayed that is not compacted: those of minutes, and of no whole day. A segment
    # that is written to is not compacted, nor are few new ones beside much that is
    "segment.ms": str(10 * 60 * 1000),
    "segment.bytes": str(32 << 20),
    "min.cleanable.dirty.ratio": "0.1",
    # each image that is finished leaves a tombstone
    "delete.retention.ms": str(3600 * 1000),
    "max.message.bytes": str(_VALUE_BYTES),
}
_log = get_logger(__name__)


async def aggregate(service: Service) -> None:
    """Aggregate until the service is asked to stop: the service's one part.

    Raises:
        FaustCrashed: Faust has crashed, or stands still behind the end of its topics.
        BrokerUnavailable: the broker has not answered for 90 s.
    """
    aggregator = Aggregator(service)
    service.health.expect(_PART, "waiting for the broker and the store")
    patience_s = _CRASHED_S
    try:
        if await aggregator.start():
            await aggregator.watch()
        finish_s = service.settings.finish_s
        patience_s = max(finish_s - _STOP_S, finish_s / 2)
    finally:
        await aggregator.stop(patience_s)


def _weight(message: Any) -> int:
    """What a message counts in its lane."""
    headers = sum(len(name) + len(value or b"") for name, value in message.headers or ())
    return 1 + (len(message.key or b"") + len(message.value or b"") + headers) // _LONG


class _Monitor(faust.Monitor):
    """Faust's own figures, and the one place where it tells that offsets are committed."""

    def on_tp_commit(self, tp_offsets: Any) -> None:
        super().on_tp_commit(tp_offsets)
        crash_point("aggregator.committed")


class Aggregator:
    """The Faust app, its agents and its tables, with what the stages need."""

    def __init__(self, service: Service) -> None:
        settings = service.settings
        assert isinstance(settings, AggregatorSettings)
        self.service = service
        self.settings = settings
        self.group = settings.group("aggregator")
        self.store = ObjectStore(
            StoreSettings(
                endpoint=settings.s3_endpoint,
                access_key=settings.s3_access_key,
                secret_key=settings.s3_secret_key.get_secret_value(),
                bucket=settings.s3_bucket,
                region=settings.s3_region,
            )
        )
        prefix = settings.topic_prefix
        self.producer = EventProducer(settings.kafka_bootstrap, prefix, SOURCE)
        self.offsets = Offsets(settings.kafka_bootstrap, prefix)
        self.lanes = Lanes(_QUEUED)
        self.app = self._make_app()
        self.masking = Masking(
            self.store, settings.cache, at_once=settings.masks_at_once,
            timeout_s=settings.masks_timeout_s, memory_mb=settings.masks_memory_mb,
        )  # fmt: skip
        imaging = Imaging(
            self.store, settings.merge_slots, self.masking, settings.max_image_detections
        )
        self.closing = Closing(self.store, self.producer, imaging)
        self.image_stage = ImageStage(
            self._table("images", topics.DETECTED), imaging, self.producer
        )
        self.job_stage = JobStage(self._table("jobs", topics.IMAGED), self.closing)
        self.pulse = Pulse(settings.session_timeout_s)
        self.board = StatusBoard(
            self.job_stage.snapshot, self.producer.send, asleep=lambda: self.pulse.doubt_s() > 0
        )
        self.closing.quiet = self.board.quiet
        self.reconciler = Reconciler(
            settings, self.store, self.producer, imaging, self.closing, self.offsets,
            stall_s=settings.stall_s, owns=self.owns, idle_s=self.idle_s,
        )  # fmt: skip
        self._agent(topics.DETECTED, self._image_event, self.image_stage.give_up)
        self._agent(topics.IMAGED, self._job_event, self.job_stage.give_up)
        self.continuity = Continuity(lambda: self.app.consumer.begins, self.offsets.first_from)
        self._passed_over: FrondError | None = None
        self._seen: dict[str, float] = {}
        self._partitioner = DefaultPartitioner()
        self._background: list[asyncio.Task[None]] = []
        self._starting: asyncio.Task[Any] | None = None
        self._beating: asyncio.Task[None] | None = None

    # -- Faust ---------------------------------------------------------------------------------

    def _make_app(self) -> Any:
        app = faust.App(
            self.group,
            broker=[f"kafka://{b.strip()}" for b in self.settings.kafka_bootstrap.split(",")],
            store="memory://",
            Monitor=_Monitor,
            processing_guarantee="at_least_once",
            web_enabled=False,
            datadir=str(self.settings.cache / "faust"),
            topic_allow_declare=False,
            topic_disable_leader=True,
            consumer_auto_offset_reset="earliest",
            broker_commit_interval=1.0,
            broker_session_timeout=self.settings.session_timeout_s,
            broker_heartbeat_interval=self.settings.session_timeout_s / 4,
            # work has its own limits, and heartbeats do not wait for it
            broker_max_poll_interval=24 * 3600.0,
            broker_max_poll_records=_POLLED,
            consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
            stream_wait_empty=False,
            stream_buffer_maxsize=1024,
            producer_max_request_size=_VALUE_BYTES,
            key_serializer="raw",
            value_serializer="raw",
        )
        # Faust takes the class from its transport, and offers no setting for it
        consumer = partial(GaplessConsumer, full=lambda: self.lanes.full)
        setattr(app.transport, "Consumer", consumer)  # noqa: B010
        app.on_partitions_revoked.connect(self._on_moved, weak=False)
        return app

    async def _on_moved(self, *_: Any, **__: Any) -> None:
        self.job_stage.forget_tallies()
        self.board.forget()

    def changelog(self, name: str) -> str:
        """The name of a table's changelog topic."""
        return f"{self.group}-{name}-changelog"

    def _table(self, name: str, source: Topic) -> Any:
        return self.app.Table(
            name, key_type=bytes, value_type=bytes, partitions=source.partitions,
            on_recover=self._on_moved,
        )  # fmt: skip

    def _agent(self, topic: Topic, handle: Handle, give_up: Handle) -> None:
        source = self.app.topic(
            topic.named(self.settings.topic_prefix),
            key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw",
            allow_empty=True,
        )  # fmt: skip
        deliver = delivery(topic, handle, give_up, self.producer, self.group)

        async def take(stream: Any) -> None:
            async for event in stream.noack().events():
                if await self._admitted(event.message):
                    one = partial(self._one, stream, deliver, event)
                    self.lanes.put(event.message.tp, one, _weight(event.message))

        self.app.agent(source, name=f"{self.group}.{topic.name}", concurrency=1)(take)

    async def _admitted(self, message: Any) -> bool:
        if self._moved(message) or self._passed_over is not None:
            return False
        if message.tp not in self.app.consumer.begins:
            # its table is not recovered yet, and it is read again when it is
            return False
        try:
            await self.continuity.admit(message.tp, message.generation_id, message.offset)
        except FrondError as e:
            # nothing more is handled: what follows would be committed past what is missing
            self._passed_over = e
        return self._passed_over is None

    async def _one(self, stream: Any, deliver: Deliver, event: Any) -> None:
        # whoever slept goes on with what it was doing, and begins nothing with tables of long ago
        await self.pulse.sure()
        if self._moved(event.message):
            return
        await deliver(event.message)
        crash_point("aggregator.handled")
        if not self._moved(event.message):
            await stream.ack(event)
            crash_point("aggregator.acknowledged")

    def _moved(self, message: Any) -> bool:
        # read before a rebalance: whoever has the partition now reads it again
        return bool(message.generation_id != self.app.consumer_generation_id)

    async def _image_event(self, envelope: Envelope) -> None:
        assert isinstance(envelope.event, JobEvent)
        self._saw(envelope.event.job_id)
        await self.image_stage.handle(envelope)

    async def _job_event(self, envelope: Envelope) -> None:
        assert isinstance(envelope.event, JobEvent)
        job_id = envelope.event.job_id
        self._saw(job_id)
        if await self.job_stage.handle(envelope):
            self.board.changed(job_id)

    # -- ownership -----------------------------------------------------------------------------

    def _saw(self, job_id: str) -> None:
        if len(self._seen) >= _ACTIVITIES:
            self._seen.clear()
        self._seen[job_id] = time.monotonic()

    def idle_s(self, job_id: str) -> float:
        """For how long this worker has seen no event of a job."""
        return time.monotonic() - self._seen.get(job_id, float("-inf"))

    def owns(self, job_id: str) -> bool:
        """Whether the job's partition of ``imaged`` is ours."""
        every = list(range(topics.IMAGED.partitions))
        return self._partitioner(job_id.encode(), every, every) in self._mine(topics.IMAGED)

    def _mine(self, topic: Topic) -> set[int]:
        name = topic.named(self.settings.topic_prefix)
        return {p.partition for p in self.app.consumer.assignment() if p.topic == name}

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> bool:
        """Prepare topics, connect, and begin to start Faust; False when asked to stop meanwhile."""
        settings = self.settings
        changelogs = [
            NewTopic(
                self.changelog(name),
                source.partitions,
                settings.replication_factor,
                topic_configs=_CHANGELOG,
            )
            for name, source in (("images", topics.DETECTED), ("jobs", topics.IMAGED))
        ]

        async def prepare() -> None:
            await wait_out(self.store.ensure_bucket, what="looking for the bucket")
            await wait_out(
                lambda: ensure_topics(
                    settings.kafka_bootstrap,
                    settings.topic_prefix,
                    extra=changelogs,
                    replication_factor=settings.replication_factor,
                ),
                what="making topics",
            )
            await wait_out(self.producer.start, what="starting the producer")
            await asyncio.to_thread(warm_up)

        if not await self._unless_stopped(prepare()):
            return False
        self.service.health.unready(_PART, "joining the consumer group, recovering the tables")
        self._beating = asyncio.create_task(self.pulse.run())
        self._starting = asyncio.create_task(self.app.start())
        return True

    async def _unless_stopped(self, work: Awaitable[None]) -> bool:
        doing = asyncio.ensure_future(work)
        stopped = asyncio.create_task(self.service.stop.wait())
        await asyncio.wait({doing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if doing.done():
            doing.result()
            return True
        doing.cancel()
        return False

    async def watch(self) -> None:
        """See that Faust lives and gets on, until asked to stop."""
        progress = Progress(
            self.offsets, self.group, self.settings.topic_prefix, stuck_s=self.settings.stuck_s,
            assigned=self.app.consumer.assignment, busy=lambda: self.lanes.busy,
            recovered=self._recovered,
        )  # fmt: skip
        starting = Still()
        probe_at = time.monotonic() + _PROBE_EVERY_S
        while not self.service.stop.is_set():
            self._check()
            self._tell_health(progress.away)
            if not self._background and starting.seconds(self._recovered()) > _START_S:
                raise FaustCrashed("Faust did not start in time")
            if self._background and time.monotonic() >= probe_at:
                await progress.probe()
                probe_at = time.monotonic() + _PROBE_EVERY_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.service.stop.wait(), 0.5)

    def _check(self) -> None:
        if self._starting is not None and self._starting.done() and not self._background:
            try:
                self._starting.result()
            except Exception as e:
                raise FaustCrashed(f"Faust did not start: {e!r}") from e
            self._background = [
                asyncio.create_task(self.board.run()),
                asyncio.create_task(self.reconciler.run(self.settings.reconcile_every_s)),
            ]
        if self.app.crashed:
            raise FaustCrashed(repr(self.app.crash_reason))
        if self._passed_over is not None:
            raise self._passed_over
        if self.lanes.broken is not None:
            raise RuntimeError("a lane is broken") from self.lanes.broken
        for task in self._background:
            if task.done():
                task.result()

    def _recovered(self) -> dict[Any, int]:
        """Up to where each changelog was read; moves while tables are recovered."""
        return dict(self.app.tables.recovery.active_offsets)

    def _tell_health(self, away: str | None) -> None:
        if away is not None:
            self.service.health.unready(_PART, away)
        elif self._background and self.app.tables.actives_ready and not self.app.rebalancing:
            self.service.health.ready(_PART)
        else:
            self.service.health.unready(_PART, "waiting for partitions and their tables")

    async def stop(self, patience_s: float) -> None:
        """Finish what is being done, commit it, and leave the group."""
        for task in self._background:
            task.cancel()
        await self.lanes.drain(patience_s)
        if self._beating is not None:
            self._beating.cancel()
        if self._starting is not None:
            try:
                await asyncio.wait_for(self.app.stop(), min(_STOP_S, patience_s))
            except Exception as e:
                _log.warning("Faust did not stop in time", error=repr(e))
            self._starting.cancel()
        await self.offsets.close()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.producer.stop(), 5)
        await asyncio.to_thread(self.masking.close)
        self.store.close()
