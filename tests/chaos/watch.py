"""What goes by on the topics, read from outside by a plain consumer of no group."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from chaos.letters import Letter, Place
from frond.contracts import topics
from frond.contracts.topics import Topic

WATCHED: Final = (
    topics.UPLOADED, topics.TILED, topics.DETECTED, topics.IMAGED, topics.COMPLETED,
    topics.DEADLETTER,
)  # fmt: skip
_SILENT_S: Final = 15.0


class Watch:
    """Distinct events of each topic, counted as they come; survives the broker.

    Args:
        completed: is told of every message on ``completed``: job id, ``ce_id``, digest of its value.

    Attributes:
        ended: ids of the jobs of which a completed event was seen.
        told: the last trouble that this reader itself had.
        buried: where the messages lay of which a dead letter was seen.
        on_completed: as ``completed``.
    """

    def __init__(
        self, bootstrap: str, completed: Callable[[str, str, str], None] | None = None
    ) -> None:
        self.bootstrap = bootstrap
        self.ended: set[str] = set()
        self.buried: set[Place] = set()
        self.told = ""
        self.on_completed = completed
        self._ids: dict[str, set[bytes]] = {t.name: set() for t in WATCHED}
        self._at: dict[TopicPartition, int] = {
            TopicPartition(t.name, p): 0 for t in WATCHED for p in range(t.partitions)
        }
        self._broker = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def begin_anew(self) -> None:
        """The broker has lost its topics: what comes is read from their beginning."""
        self._at = dict.fromkeys(self._at, 0)
        self._broker += 1

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def count(self, topic: Topic) -> int:
        """How many distinct events were seen on a topic."""
        return len(self._ids[topic.name])

    def counts(self) -> dict[str, int]:
        """How many distinct events were seen, by topic."""
        return {name: len(ids) for name, ids in self._ids.items()}

    async def more(self, of: Topic | Iterable[Topic], more: int, within: float) -> None:
        """Wait for further distinct events of a topic, or of several together.

        Raises:
            AssertionError: they did not come.
        """
        topics_ = (of,) if isinstance(of, Topic) else tuple(of)

        def seen() -> int:
            return sum(self.count(t) for t in topics_)

        wanted = seen() + more
        await self._until(
            lambda: seen() >= wanted, within,
            lambda: f"{wanted} events were awaited on {', '.join(t.name for t in topics_)}; "
            f"seen so far: {self.counts()}",
        )  # fmt: skip

    async def end_of(self, job_ids: Iterable[str], within: float) -> None:
        """Wait for the completed events of these jobs. Raises AssertionError."""
        wanted = set(job_ids)
        await self._until(
            lambda: wanted <= self.ended, within,
            lambda: f"no completed event of {sorted(wanted - self.ended)[:10]}",
        )  # fmt: skip

    async def any_change(self, within: float) -> None:
        """Wait until anything new is seen, or the time is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), within)

    async def _until(
        self, done: Callable[[], bool], within: float, told: Callable[[], str]
    ) -> None:
        try:
            async with asyncio.timeout(within):
                while not done():
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{told()} within {within:.0f} s") from None

    async def _run(self) -> None:
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        while True:
            # in a task of its own: during an outage aiokafka lets a CancelledError of its own out
            session = asyncio.create_task(self._session())
            try:
                await asyncio.wait({session})
            finally:
                session.cancel()
            if not session.cancelled() and (error := session.exception()) is not None:
                self.told = repr(error)
            await asyncio.sleep(0.3)  # nothing announces that a broker is back

    async def _session(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, enable_auto_commit=False,
            auto_offset_reset="earliest", request_timeout_ms=10_000,
        )  # fmt: skip
        try:
            async with asyncio.timeout(30):
                await consumer.start()
            consumer.assign(list(self._at))
            for tp, offset in self._at.items():
                consumer.seek(tp, offset)
            await self._read(consumer)
        finally:
            # nor may one that cannot be stopped keep the next one from starting
            await asyncio.wait({asyncio.create_task(consumer.stop())}, timeout=5)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        """Until nothing has come for a while: then a fresh consumer goes on where this one was."""
        silent, broker = 0.0, self._broker
        while silent < _SILENT_S:
            found = await consumer.getmany(timeout_ms=1000, max_records=2000)
            if broker != self._broker:
                return
            silent = 0.0 if found else silent + 1
            for tp, messages in found.items():
                for message in messages:
                    self._take(tp.topic, message)
                self._at[tp] = messages[-1].offset + 1
            if found:
                self._changed.set()
                self._changed = asyncio.Event()

    def _take(self, topic: str, message: object) -> None:
        headers = {str(k): v or b"" for k, v in message.headers}  # type: ignore[attr-defined]
        ce_id = headers.get("ce_id")
        if ce_id is None:
            # a publisher's message without headers; it is itself
            ce_id = hashlib.sha256(message.value or b"").hexdigest()[:32].encode()  # type: ignore[attr-defined]
        self._ids[topic].add(ce_id[:32])
        if topic == topics.DEADLETTER.name:
            self.buried.add(Letter.read(message).of)
        if topic == topics.COMPLETED.name:
            job_id = headers.get("ce_subject", b"").decode("utf-8", "replace")
            self.ended.add(job_id)
            if self.on_completed is not None:
                value = hashlib.sha256(message.value or b"").hexdigest()  # type: ignore[attr-defined]
                self.on_completed(job_id, ce_id.decode("utf-8", "replace"), value)
