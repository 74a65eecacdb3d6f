"""The consumer loop of every service but the aggregator.

At least once: an offset is committed only when it and all before it are done. Heartbeats run on
the event loop and never wait for work. Work is bounded, and so is what is read ahead of it, from
which jobs are served in turn. At a rebalance, work on partitions that are gone is dropped: whoever
has them now does it again, under the same names.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from frond.bus import metrics
from frond.bus.ahead import Ahead
from frond.bus.handling import GiveUp, Handler, Handling, Unreadable
from frond.bus.hands import Hands, Work
from frond.bus.producer import EventProducer
from frond.bus.progress import PROBE_EVERY_S, Progress
from frond.bus.tracker import CommitTracker
from frond.contracts.errors import BrokerUnavailable
from frond.contracts.topics import Topic
from frond.runtime import Service, get_logger, maybe_crash_point, wait_out

METADATA_MAX_AGE_MS: Final = 30_000
"""A broker that has just started may know no topics yet: a group that shares out its partitions at
that moment shares out none, until its leader sees them."""
_COMMIT_EVERY_S: Final = 1.0
_WAIT_S: Final = 0.5
_LET_GO_S: Final = 10.0
_log = get_logger(__name__)


async def consume(
    service: Service,
    topic: Topic,
    handler: Handler,
    *,
    producer: EventProducer,
    concurrency: int = 4,
    group: str | None = None,
    unreadable: Unreadable | None = None,
    give_up: GiveUp | None = None,
    held: Callable[[str], bool] = lambda _: False,
    at_once: Collection[str] = (),
) -> None:
    """Hand every event of a topic to ``handler`` until the service is asked to stop.

    What the handler returns is sent, and acknowledged, before the event's offset can be
    committed. The handler may be called again for an event it has handled. Outages of the broker
    and the store are waited out; a message that is no event, or that the handler fails on three
    times with anything else, goes to the dead-letter topic.

    Up to ``FROND_LOOKAHEAD`` events are read ahead, and jobs are served from them in turn, each in
    the order of its partitions.

    Args:
        concurrency: how many events are handled at once. What handlers have returned is sent
            besides, that of up to 1,000 events at once.
        group: consumer group; ``frond.<service>`` by default.
        unreadable: what else to send for a message that is no event, so that a ledger it was meant
            for can close.
        give_up: what else to send for an event that the handler failed on three times.
        held: whether a job's events are to wait for now; asked again every half second.
        at_once: types of events that wait for nothing that was read before them: a cancellation,
            say, behind ten thousand images. As many as ``concurrency`` are handled besides.

    Raises:
        BrokerUnavailable: the broker has not answered for 90 s, or nothing was read for 120 s
            though there is something to read; the process should exit.
    """
    named = group or service.settings.group(service.name)
    handling = Handling(
        topic, named, handler, producer, unreadable=unreadable, give_up=give_up,
        service=service.name,
    )  # fmt: skip
    await _Loop(service, topic, handling, concurrency, held, at_once).run(named)


class _Loop:
    def __init__(
        self,
        service: Service,
        topic: Topic,
        handling: Handling,
        concurrency: int,
        held: Callable[[str], bool],
        at_once: Collection[str] = (),
    ) -> None:
        self.service = service
        self.topic = topic
        self.hands = Hands(handling, concurrency, self._following, self._mine, self._broken)
        self.held = held
        self.at_once = frozenset(t.encode() for t in at_once)
        self.ahead = Ahead(service.settings.lookahead)
        self.trackers: dict[TopicPartition, CommitTracker] = {}
        self.part = f"consuming {topic.name}"

    async def run(self, group: str) -> None:
        health, settings = self.service.health, self.service.settings
        session_timeout_ms = int(settings.session_timeout_s * 1000)
        health.expect(self.part, "joining the consumer group")
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
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )
        await wait_out(self._start, what=f"starting on {self.topic.name}")
        watch = asyncio.create_task(self._watch())
        metrics.IN_FLIGHT.labels(self.topic.name).set_function(lambda: self.hands.in_flight)
        try:
            await self._poll(watch)
            await self._drain()
        finally:
            metrics.AHEAD.labels(self.topic.name).set(0)
            await self._let_go()
            metrics.IN_FLIGHT.labels(self.topic.name).set_function(lambda: 0)
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
            await self._read()
            self.hands.look()
            metrics.AHEAD.labels(self.topic.name).set(len(self.ahead))
            if time.monotonic() - committed >= _COMMIT_EVERY_S:
                await self.commit()
                committed = time.monotonic()

    async def _read(self) -> None:
        """Read what there is room for; returns within a second."""
        room = self.ahead.room(self.trackers)
        if self.trackers and not room:
            # what is not asked for stays with aiokafka: one fetched batch a partition, no more
            await asyncio.sleep(_WAIT_S / 5)
            return
        most = self.ahead.batch(len(self.trackers))
        # without a partition, too: a consumer that never asks is taken for dead by aiokafka, which
        # would leave the group for good, and hears of no error in joining it. But then it waits for the
        # end of a rebalance, whatever it was told; what it has to give, it gives without waiting
        limit_s = None if self.trackers else 2 * _WAIT_S
        try:
            async with asyncio.timeout(limit_s):
                got = await self.consumer.getmany(
                    *room, timeout_ms=int(_WAIT_S * 1000), max_records=most
                )
        except TimeoutError:
            return
        except (KafkaError, OSError) as e:
            _log.warning("reading from the broker failed", topic=self.topic.name, error=repr(e))
            await asyncio.sleep(_WAIT_S)
            return
        # a rebalance may have come and gone meanwhile: aiokafka hands out what belongs to the
        # assignment of now, and counts it as read
        for partition, messages in got.items():
            tracker = self.trackers.get(partition)
            if tracker is None:
                # assigned a moment ago, and we have not been told yet
                with contextlib.suppress(IllegalStateError):
                    self.consumer.seek(partition, messages[0].offset)
                continue
            for message in messages:
                tracker.add(message.offset)
                work = Work(partition, message, tracker)
                if not (self._cannot_wait(message) and self.hands.squeeze_in(work)):
                    self.ahead.add(partition, message)
        await self._pass_over()

    async def _pass_over(self) -> None:
        """Let commits follow the reading past offsets without a message, such as transactions' ends.

        Between two reads only: at any other time aiokafka may have moved a position past messages
        that are not tracked yet.
        """
        for partition, tracker in list(self.trackers.items()):
            if tracker.in_flight:
                continue
            with contextlib.suppress(TimeoutError, KafkaError):
                # a position that is not known at once is not waited for: others are to be read
                async with asyncio.timeout(0):
                    tracker.pass_to(await self.consumer.position(partition))

    def _cannot_wait(self, message: Any) -> bool:
        return bool(self.at_once) and any(
            k.lower() == "ce_type" and v in self.at_once for k, v in message.headers
        )

    def _following(self) -> Work | None:
        if self.service.stop.is_set():
            return None
        read = self.ahead.next(self.held)
        if read is None:
            return None
        return Work(read.partition, read.message, self.trackers[read.partition])

    def _mine(self, work: Work) -> bool:
        return self.trackers.get(work.partition) is work.tracker

    def _broken(self, error: BaseException) -> None:
        # nothing but a bug in this package ends here; exiting lets the message be read again
        self.service.health.fatal = "the consumer loop is broken; the log says why"
        _log.error("the consumer loop is broken", exc_info=error)
        self.service.stop.set()

    async def commit(self) -> None:
        """Commit what is done. A failure is no loss: it will be read and recognised again."""
        offsets = {p: t.committable for p, t in self.trackers.items() if t.committable is not None}
        if not offsets:
            return
        try:
            await asyncio.wait_for(self.consumer.commit(offsets), 10)
            maybe_crash_point(f"{self.service.name}.committed")
        except (CommitFailedError, IllegalStateError) as e:
            _log.warning("a commit came too late", topic=self.topic.name, error=str(e))
        except (KafkaError, OSError, TimeoutError) as e:
            _log.warning("a commit failed", topic=self.topic.name, error=repr(e))

    async def _drain(self) -> None:
        """Finish what is in flight, as far as there is time, commit it, and leave; what was only read is
        handed back."""
        await self.hands.idle(self.service.settings.finish_s)
        await self.commit()

    async def _let_go(self) -> None:
        """See the end of what is in flight: after us, store and producer are closed, and work that
        went on would fail at that, and be given up for what is no fault of its event."""
        self.hands.close()
        await self.hands.idle(_LET_GO_S)

    async def _watch(self) -> None:
        progress = Progress(self.consumer, self.topic.name, self.ahead.of)
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            wrong = await progress.probe(busy=self.hands.in_flight > 0 or len(self.ahead) > 0)
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
            self.loop.ahead.forget(partition)
            self.loop.trackers.pop(partition, None)
        self.loop.hands.drop(revoked)

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        for partition in assigned:
            self.loop.trackers[partition] = CommitTracker()
        self.loop.service.health.ready(self.loop.part)
