"""What an operator's commands need beyond REST: the dead-letter topic.

A letter that was replayed or dropped is followed on the topic by a marker: no value, its id as key,
and headers ``dlq_mark`` and ``dlq_id``. A letter has ``dlq_topic``, which no marker has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from frond.bus import DeadLetter, EventProducer
from frond.client.environment import frond_env, setting
from frond.client.errors import FrondClientError
from frond.client.objects import required
from frond.client.reading import let_go, messages_to
from frond.contracts import topics
from frond.contracts.errors import BrokerUnavailable

_MARK: Final = "dlq_mark"
_ID: Final = "dlq_id"
_TOPIC: Final = "dlq_topic"
_BY_NAME: Final = {t.name: t for t in topics.ALL}


@dataclass(frozen=True)
class Found:
    """A dead letter on the topic.

    Attributes:
        at: the partition and offset that it lies at itself.
        mark: what became of it, if anything did.
    """

    letter: DeadLetter
    at: tuple[int, int]
    mark: str | None = None

    @property
    def id(self) -> str:
        return self.letter.id


class DeadLetters:
    """The dead-letter topic of an installation, read from its beginning by each ``find``."""

    def __init__(self, bootstrap: str, prefix: str, producer: EventProducer) -> None:
        self.bootstrap = bootstrap
        self.prefix = prefix
        self.producer = producer

    async def find(
        self,
        ids: Iterable[str] = (),
        *,
        reason: str | None = None,
        topic: str | None = None,
        everything: bool = False,
    ) -> list[Found]:
        """Letters without their values, the oldest first, by one reading of the topic.

        Args:
            ids: these, dealt with or not; the other arguments then choose nothing.
            reason: only those that died of it.
            topic: only those that lay there.
            everything: also those that were replayed or dropped.

        Raises:
            FrondClientError: there is no letter with one of the ids.
        """
        wanted = set(ids)
        # marks come after their letters, but partitions come in any order
        marks: dict[str, str] = {}
        kept: dict[str, Found] = {}
        async for message in self._read():
            letter, marked = _read_one(message)
            if marked is not None:
                marks[marked[0]] = marked[1]
            elif (
                letter.id in wanted
                if wanted
                else reason in (None, letter.reason) and topic in (None, letter.topic)
            ):
                at = (message.partition, message.offset)
                kept[letter.id] = Found(replace(letter, value=None), at)
        if missing := sorted(wanted - kept.keys()):
            raise FrondClientError(
                f"There is no dead letter {', '.join(missing)}; see `frond dlq list --all`."
            )
        found = [
            replace(f, mark=marks.get(i))
            for i, f in kept.items()
            if wanted or everything or i not in marks
        ]
        return sorted(found, key=lambda f: (f.letter.time, f.id))

    async def whole(self, found: Iterable[Found]) -> AsyncIterator[Found]:
        """The same letters with their values, in the topic's order.

        Raises:
            FrondClientError: at the end, if one has left the topic meanwhile.
        """
        left = {f.at: f for f in found}
        spans: dict[int, range] = {}
        for partition, offset in sorted(left):
            begin = spans.get(partition, range(offset, offset)).start
            spans[partition] = range(begin, offset + 1)
        async for message in self._read(spans):
            if one := left.pop((message.partition, message.offset), None):
                yield replace(one, letter=_read_one(message)[0])
        if left:
            gone = ", ".join(sorted(f.id for f in left.values()))
            raise FrondClientError(f"Their time on the topic has ended: {gone}.")

    async def replay(
        self, found: Sequence[Found], done: Callable[[Found], None] | None = None
    ) -> None:
        """Send letters to their topics as they were, and mark each. May be done again.

        Args:
            done: told of each letter that was sent.

        Raises:
            FrondClientError: one came from no topic of Frond; none was sent then.
        """
        for f in found:
            if f.letter.topic not in _BY_NAME:
                raise FrondClientError(
                    f"Nothing is replayed: {f.id} is from {f.letter.topic!r}, which is no topic of "
                    f"Frond. `frond dlq drop {f.id}` puts it aside."
                )
        async for f in self.whole(found):
            letter = f.letter
            topic = _BY_NAME[letter.topic]
            await self.producer.send_raw(topic, letter.key, letter.value, letter.headers)
            await self._mark(f.id, "replayed")
            if done is not None:
                done(f)

    async def drop(self, found: Iterable[Found]) -> None:
        """Mark letters as dealt with."""
        for f in found:
            await self._mark(f.id, "dropped")

    async def _mark(self, letter_id: str, mark: str) -> None:
        headers = [(_MARK, mark.encode()), (_ID, letter_id.encode())]
        await self.producer.send_raw(topics.DEADLETTER, letter_id.encode(), None, headers)

    async def _read(self, spans: Mapping[int, range] | None = None) -> AsyncIterator[Any]:
        """Every message up to the topic's present end, or those at these offsets by partition."""
        name = topics.DEADLETTER.named(self.prefix)
        consumer = AIOKafkaConsumer(
            name, bootstrap_servers=self.bootstrap, group_id=None, enable_auto_commit=False,
            auto_offset_reset="earliest", isolation_level="read_committed",
        )  # fmt: skip
        try:
            await consumer.start()
            partitions = sorted(
                p for p in consumer.assignment() if spans is None or p.partition in spans
            )
            at = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
            for p in partitions:
                if spans is not None:
                    at[p] = max(at[p], spans[p.partition].start)
                    ends[p] = min(ends[p], spans[p.partition].stop)
                consumer.seek(p, at[p])
            upto = {p: ends[p] for p in partitions if ends[p] > at[p]}
            async for message in messages_to(consumer, upto):
                yield message
        except (KafkaError, OSError) as e:
            raise BrokerUnavailable(f"Kafka does not answer at {self.bootstrap}: {e}") from e
        finally:
            await let_go(consumer)


def _read_one(message: Any) -> tuple[DeadLetter, tuple[str, str] | None]:
    """The message as a letter and, where it is a mark, which letter's it is and what it says."""
    headers = [(k, v or b"") for k, v in message.headers]
    letter = DeadLetter.from_message(message.key, message.value, headers)
    said = {k: v.decode("utf-8", "replace") for k, v in headers if k in (_MARK, _ID, _TOPIC)}
    if message.value is None and _MARK in said and _TOPIC not in said:
        return letter, (said.get(_ID, ""), said[_MARK])
    return letter, None


@asynccontextmanager
async def dead_letters() -> AsyncIterator[DeadLetters]:
    """The dead letters of the installation that FROND_KAFKA_BOOTSTRAP leads to.

    Raises:
        BrokerUnavailable: the broker does not answer.
    """
    env = frond_env()
    (bootstrap,) = required(env, "FROND_KAFKA_BOOTSTRAP")
    prefix = setting(env, "FROND_TOPIC_PREFIX")
    producer = EventProducer(bootstrap, prefix, "/frond/dlq")
    try:
        await producer.start()
    except BrokerUnavailable as e:
        raise BrokerUnavailable(f"Kafka does not answer at {bootstrap}: {e.__cause__}") from e
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
        # pairs: a name may come several times
        facts["headers"] = [[k, _text(v)] for k, v in letter.headers]
        facts["value"] = _text(letter.value)
    return facts


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "backslashreplace")
