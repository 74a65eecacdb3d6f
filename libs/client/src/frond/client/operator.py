"""What an operator's commands need beyond REST: the object store, and the dead-letter topic.

A letter that was replayed or dropped is followed on the topic by a marker: no value, its id as key,
and headers ``dlq_mark`` and ``dlq_id``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from frond.bus import DeadLetter, EventProducer
from frond.client.environment import frond_env, setting
from frond.client.errors import FrondClientError
from frond.contracts import topics
from frond.contracts.errors import BrokerUnavailable
from frond.store import ObjectStore, StoreSettings

_MARK: Final = "dlq_mark"
_ID: Final = "dlq_id"
_BY_NAME: Final = {t.name: t for t in topics.ALL}


def required(env: Mapping[str, str], *names: str) -> list[str]:
    """Variables that must be there. Raises FrondClientError with those that are not."""
    missing = [n for n in names if not setting(env, n)]
    if missing:
        raise FrondClientError(
            f"{' and '.join(missing)} must be set for this. `make up` writes them to .frond/env."
        )
    return [setting(env, n) for n in names]


def open_store() -> ObjectStore:
    """The object store that FROND_S3_… lead to."""
    env = frond_env()
    endpoint, access, secret = required(
        env, "FROND_S3_ENDPOINT", "FROND_S3_ACCESS_KEY", "FROND_S3_SECRET_KEY"
    )
    return ObjectStore(
        StoreSettings(
            endpoint, access, secret, setting(env, "FROND_S3_BUCKET", "frond"),
            setting(env, "FROND_S3_REGION", "us-east-1"),
        )
    )  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A dead letter on the topic; ``mark`` says what became of it, if anything did."""

    letter: DeadLetter
    mark: str | None = None

    @property
    def id(self) -> str:
        return self.letter.id


class DeadLetters:
    """The dead-letter topic of an installation, read from its beginning at each call."""

    def __init__(self, bootstrap: str, prefix: str, producer: EventProducer) -> None:
        self.bootstrap = bootstrap
        self.prefix = prefix
        self.producer = producer

    async def list(self, *, limit: int = 50, everything: bool = False) -> list[Found]:
        """The newest letters, the oldest of them first, without their values.

        Args:
            everything: also those that were replayed or dropped.
        """
        # marks come after their letters, but partitions come in any order
        marks: dict[str, str] = {}
        kept: dict[str, DeadLetter] = {}
        async for message, marked in self._read():
            if marked is not None:
                marks[marked[0]] = marked[1]
                continue
            kept[message.id] = replace(message, value=None)
        found = [Found(m, marks.get(i)) for i, m in kept.items() if everything or i not in marks]
        found.sort(key=lambda f: (f.letter.time, f.id))
        return list(deque(found, maxlen=limit))

    async def get(self, letter_id: str) -> Found:
        """One letter, whole. Raises FrondClientError where there is none."""
        found: Found | None = None
        mark: str | None = None
        async for message, marked in self._read():
            if marked is not None:
                mark = marked[1] if marked[0] == letter_id else mark
            elif message.id == letter_id:
                found = Found(message)
        if found is None:
            raise FrondClientError(f"There is no dead letter {letter_id}; see `frond dlq list`.")
        return replace(found, mark=mark)

    async def replay(self, letter_id: str) -> Found:
        """Send a letter to its topic as it was, then mark it. May be done again."""
        found = await self.get(letter_id)
        topic = _BY_NAME.get(found.letter.topic)
        if topic is None:
            raise FrondClientError(f"{found.letter.topic} is no topic of Frond.")
        letter = found.letter
        await self.producer.send_raw(topic, letter.key, letter.value, letter.headers)
        await self._mark(letter_id, "replayed")
        return found

    async def drop(self, letter_id: str) -> None:
        """Mark a letter as dealt with."""
        await self.get(letter_id)
        await self._mark(letter_id, "dropped")

    async def _mark(self, letter_id: str, mark: str) -> None:
        headers = [(_MARK, mark.encode()), (_ID, letter_id.encode())]
        await self.producer.send_raw(topics.DEADLETTER, letter_id.encode(), None, headers)

    async def _read(self) -> AsyncIterator[tuple[DeadLetter, tuple[str, str] | None]]:
        """Every message up to the topic's present end: a letter, or a mark (id, what)."""
        name = topics.DEADLETTER.named(self.prefix)
        consumer = AIOKafkaConsumer(
            name, bootstrap_servers=self.bootstrap, group_id=None, enable_auto_commit=False,
            auto_offset_reset="earliest", isolation_level="read_committed",
        )  # fmt: skip
        try:
            await consumer.start()
            partitions = sorted(consumer.assignment())
            await consumer.seek_to_beginning(*partitions)
            ends = await consumer.end_offsets(partitions)
            starts = await consumer.beginning_offsets(partitions)
            left = {p for p in partitions if ends[p] > starts[p]}
            while left:
                got = await consumer.getmany(*left, timeout_ms=1000)
                for messages in got.values():
                    for m in messages:
                        yield _read_one(m)
                left = {p for p in left if await consumer.position(p) < ends[p]}
        except (KafkaError, OSError) as e:
            raise BrokerUnavailable(f"Kafka does not answer at {self.bootstrap}: {e}") from e
        finally:
            await consumer.stop()


def _read_one(message: Any) -> tuple[DeadLetter, tuple[str, str] | None]:
    headers = [(k, v or b"") for k, v in message.headers]
    letter = DeadLetter.from_message(message.key, message.value, headers)
    told = dict(headers)
    if _MARK in told:
        return letter, (told.get(_ID, b"").decode(), told[_MARK].decode("utf-8", "replace"))
    return letter, None


@asynccontextmanager
async def dead_letters() -> AsyncIterator[DeadLetters]:
    """The dead letters of the installation that FROND_KAFKA_BOOTSTRAP leads to."""
    env = frond_env()
    (bootstrap,) = required(env, "FROND_KAFKA_BOOTSTRAP")
    prefix = setting(env, "FROND_TOPIC_PREFIX")
    producer = EventProducer(bootstrap, prefix, "/frond/dlq")
    await producer.start()
    try:
        yield DeadLetters(bootstrap, prefix, producer)
    finally:
        await producer.stop()


def told(found: Found, *, value: bool = False) -> dict[str, Any]:
    """A letter's facts as JSON values; bytes that are no text are shown with escapes."""
    letter = found.letter
    facts: dict[str, Any] = {
        "id": found.id, "mark": found.mark, "topic": letter.topic, "partition": letter.partition,
        "offset": letter.offset, "group": letter.group, "reason": letter.reason,
        "detail": letter.detail, "attempts": letter.attempts, "time": letter.time,
        "trace_id": letter.trace_id, "key": _text(letter.key),
    }  # fmt: skip
    if value:
        facts["headers"] = {k: _text(v) for k, v in letter.headers}
        facts["value"] = _text(letter.value)
    return facts


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "backslashreplace")
