"""Keeps the read model: all partitions of the topics, offsets in the transaction of the rows.

No consumer group: what was read is remembered where it was written, so that an event counts once
whatever is killed, and an empty database replays everything; what the topics have lost is read
from objects beside it (:mod:`frond.ingest.readmodel.rebuild`). Where several ingest processes share
a PostgreSQL, each reads all; the first to advance an offset applies, the others skip.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from frond.contracts import topics
from frond.contracts.envelope import decode
from frond.contracts.errors import BrokerUnavailable, DatabaseUnavailable, UnreadableEvent
from frond.contracts.events import JobEvent
from frond.contracts.topics import Topic
from frond.ingest.context import Ingest
from frond.ingest.readmodel import rebuild, tables
from frond.ingest.readmodel.changes import Dated, apply_all
from frond.runtime import Service, count_wait, crash_point, get_logger, wait_out

TOPICS: Final[tuple[Topic, ...]] = (
    topics.UPLOADED, topics.DETECTED, topics.IMAGED, topics.STATUS, topics.COMPLETED,
)  # fmt: skip
PART: Final = "read model"

_BATCH: Final = 500
_PAUSE_S: Final = 0.1
"""Between two batches: what comes meanwhile is applied at once. Transactions cost more than events,
and others write to the database in between. No longer: a job's end may be read before its last
images, and until the next batch its page says more than their list."""
_CATCHING_UP_S: Final = 0.02
_PROBE_EVERY_S: Final = 10.0
_PATIENCE_S: Final = 30.0
_LOOK_S: Final = 1.0
_O: Final = tables.offsets.c
# once: making it anew for each partition of each batch took longer than carrying it out
_ADVANCE: Final = (
    update(tables.offsets)
    .where(
        _O.cluster == bindparam("at_cluster"), _O.topic == bindparam("at_topic"),
        _O.partition == bindparam("at_partition"), _O.offset == bindparam("before"),
    )
    .values(offset=bindparam("after"))
)  # fmt: skip
_log = get_logger(__name__)

Positions = dict[TopicPartition, int]


class _Overtaken(Exception):
    """Another process has advanced an offset: read it anew."""


class _Silent(Exception):
    """The broker has not answered this consumer for too long: begin with a new one."""


async def keep_read_model(service: Service, ingest: Ingest) -> None:
    """Apply events until the service is asked to stop. Outages of Kafka and SQL are waited out."""
    service.health.expect(PART, "connecting")
    rebuilding: asyncio.Task[None] | None = None
    while not service.stop.is_set():
        reader = Reader(ingest)
        try:
            await wait_out(reader.start, what="starting the read model")
            if rebuilding is None or rebuilding.done():
                rebuilding = await _rebuild_if_due(ingest, reader.cluster)
            service.health.ready(PART)
            await reader.run(service.stop)
        except (_Overtaken, _Silent, KafkaError, OperationalError, InterfaceError, OSError) as e:
            if isinstance(e, (OperationalError, InterfaceError)):
                count_wait(DatabaseUnavailable(str(e)))
            if not isinstance(e, _Overtaken):
                service.health.unready(PART, "connecting anew")
                _log.warning("the read model begins anew", error=repr(e))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(service.stop.wait(), 1)
        finally:
            await reader.close()


async def _rebuild_if_due(ingest: Ingest, cluster: str) -> asyncio.Task[None] | None:
    if not await rebuild.is_due(ingest, cluster):
        return None
    task = asyncio.create_task(rebuild.rebuild(ingest, cluster))
    ingest.spawn(task)
    return task


class Reader:
    """One consumer from its stored offsets on."""

    def __init__(self, ingest: Ingest) -> None:
        self.ingest = ingest
        self.cluster = ""
        self.positions: Positions = {}
        self.consumer: AIOKafkaConsumer | None = None
        self._goal: Positions | None = None
        prefix = ingest.settings.topic_prefix
        self.topics: Mapping[str, Topic] = {t.named(prefix): t for t in TOPICS}

    async def start(self) -> None:
        """Connect and go to where the database stopped. Raises BrokerUnavailable."""
        bootstrap = self.ingest.settings.kafka_bootstrap
        try:
            async with asyncio.timeout(30):
                self.cluster = await _cluster_id(bootstrap)
                self.consumer = AIOKafkaConsumer(
                    bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False,
                    auto_offset_reset="earliest", isolation_level="read_committed",
                    metadata_max_age_ms=30_000, request_timeout_ms=20_000,
                )  # fmt: skip
                await self.consumer.start()
                await self._assign()
        except (KafkaError, TimeoutError, OSError) as e:
            await self.close()
            raise BrokerUnavailable(f"{bootstrap}: {e!r}") from e

    async def close(self) -> None:
        if self.consumer is not None:
            consumer, self.consumer = self.consumer, None
            # in a task of its own: during an outage aiokafka lets a CancelledError of its own out
            stopping = asyncio.create_task(consumer.stop())
            await asyncio.wait({stopping}, timeout=10)

    async def _assign(self) -> None:
        assert self.consumer is not None
        await self.consumer._client.force_metadata_update()
        found = [
            TopicPartition(name, p)
            for name in sorted(self.topics)
            for p in sorted(self.consumer.partitions_for_topic(name) or ())
        ]
        if {p.topic for p in found} != set(self.topics):
            raise BrokerUnavailable("the topics are not made yet")
        self.positions = await self._stored(found)
        self.consumer.assign(found)
        for partition, offset in self.positions.items():
            self.consumer.seek(partition, offset)

    async def _stored(self, partitions: Sequence[TopicPartition]) -> Positions:
        async with self.ingest.db.write() as c:
            # rows exist before they are advanced, so that advancing is one compare-and-set
            fresh = [
                {"cluster": self.cluster, "topic": p.topic, "partition": p.partition, "offset": 0}
                for p in partitions
            ]
            await c.execute(self.ingest.db.insert(tables.offsets).on_conflict_do_nothing(), fresh)
            rows = await c.execute(select(tables.offsets).where(_O.cluster == self.cluster))
            stored = {TopicPartition(r.topic, r.partition): r.offset for r in rows}
        return {p: stored[p] for p in partitions}

    async def run(self, stop: asyncio.Event) -> None:
        """Read and apply until asked to stop, or until something has to begin anew."""
        assert self.consumer is not None
        watch = asyncio.create_task(self._watch())
        try:
            while not stop.is_set():
                if watch.done():
                    watch.result()
                got = await self.consumer.getmany(timeout_ms=300, max_records=_BATCH)
                if got:
                    await self._take(got)
                    full = sum(map(len, got.values())) == _BATCH
                    await asyncio.sleep(_CATCHING_UP_S if full else _PAUSE_S)
                await self._look_whether_caught_up()
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError, _Silent):
                await watch

    async def _look_whether_caught_up(self) -> None:
        """Tell once that what was on the topics when they were first looked at is in the rows."""
        assert self.consumer is not None
        if self._goal is None or self.ingest.hub.caught_up:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                for p in list(self._goal):
                    # not our own: a transaction's marker is an offset that no message has
                    if await self.consumer.position(p) >= self._goal[p]:
                        del self._goal[p]
            if not self._goal:
                self.ingest.hub.reached()

    async def _take(self, got: Mapping[TopicPartition, Sequence[Any]]) -> None:
        dated: list[Dated] = []
        ends: Positions = {}
        for partition, messages in got.items():
            topic = self.topics[partition.topic]
            ends[partition] = messages[-1].offset + 1
            for message in messages:
                try:
                    envelope = decode(topic, message.value, message.headers)
                except UnreadableEvent:
                    continue  # whoever works on the topic sends the dead letter
                # every topic read here carries events of jobs alone
                assert isinstance(envelope.event, JobEvent)
                dated.append((envelope.event, _when(envelope.time, message.timestamp)))
        try:
            changed = await self._commit(dated, ends)
        except (_Overtaken, OperationalError, InterfaceError):
            raise
        except Exception as e:
            _log.warning("a batch does not fit; applying its events singly", error=repr(e))
            changed = await self._singly(dated, ends)
        self.positions.update(ends)
        self.ingest.hub.applied(changed, len(dated))

    async def _commit(self, dated: Sequence[Dated], ends: Positions) -> set[str]:
        async with self.ingest.db.write() as c:
            await self._advance(c, ends)
            changed = await apply_all(self.ingest.db, c, dated) if dated else set()
            crash_point("ingest.rows-written")
        crash_point("ingest.rows-committed")
        return changed

    async def _singly(self, dated: Sequence[Dated], ends: Positions) -> set[str]:
        """One event that no row can hold (a number of 2^70 windows, say) must not stop the rest."""
        changed: set[str] = set()
        async with self.ingest.db.write() as c:
            await self._advance(c, ends)
            for event in dated:
                try:
                    async with c.begin_nested():
                        changed |= await apply_all(self.ingest.db, c, [event])
                except (OperationalError, InterfaceError):
                    raise
                except Exception as e:
                    _log.error(
                        "an event is left out of the read model", job_id=event[0].job_id,
                        type=event[0].TYPE, error=repr(e),
                    )  # fmt: skip
        return changed

    async def _advance(self, c: AsyncConnection, ends: Positions) -> None:
        for partition in sorted(ends):
            at = {
                "at_cluster": self.cluster, "at_topic": partition.topic,
                "at_partition": partition.partition, "before": self.positions[partition],
                "after": ends[partition],
            }  # fmt: skip
            if (await c.execute(_ADVANCE, at)).rowcount != 1:
                raise _Overtaken

    async def _watch(self) -> None:
        """A sign of life from the broker, and whether topics have grown."""
        assert self.consumer is not None
        last = time.monotonic()
        pause = 0.0
        while True:
            await asyncio.sleep(pause)
            pause = _PROBE_EVERY_S
            # ends only grow, and events are taken while the answer is on its way
            before = dict(self.positions)
            try:
                async with asyncio.timeout(_PROBE_EVERY_S):
                    ends = await self.consumer.end_offsets(list(before))
            except (KafkaError, OSError, TimeoutError) as e:
                if time.monotonic() - last > _PATIENCE_S:
                    raise _Silent(repr(e)) from e
                continue
            last = time.monotonic()
            now = sum(len(self.consumer.partitions_for_topic(t) or ()) for t in self.topics)
            if now > len(self.positions):
                raise _Silent("topics have more partitions now")
            behind = [p for p, end in ends.items() if end < before[p]]
            if behind:
                # the cluster is the same by its id, its topics are not: made anew
                await self._rewind(behind)
                raise _Silent("topics were made anew")
            if self._goal is None:
                self._goal = dict(ends)

    async def _rewind(self, partitions: Sequence[TopicPartition]) -> None:
        async with self.ingest.db.write() as c:
            for p in partitions:
                await c.execute(
                    update(tables.offsets)
                    .where(
                        _O.cluster == self.cluster, _O.topic == p.topic, _O.partition == p.partition
                    )
                    .values(offset=0)
                )
        # what was on them and never read is told by objects alone
        await rebuild.mark(self.ingest, self.cluster, done=False)


def _when(told: datetime | None, logged: int) -> int:
    try:
        return int(told.timestamp() * 1000) if told else logged
    except (ValueError, OverflowError, OSError):
        return logged  # a year that no clock shows


async def _cluster_id(bootstrap: str) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
    try:
        await admin.start()
        return str((await admin.describe_cluster()).get("cluster_id") or "")[:64]
    finally:
        await admin.close()
