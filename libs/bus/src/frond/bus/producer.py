"""Sending events: acknowledged by the broker before the caller goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from frond.bus.outbox import BATCH_BYTES, Outbox, Told
from frond.bus.placing import place
from frond.contracts.envelope import Headers, encode
from frond.contracts.errors import BrokerUnavailable, FrondError
from frond.contracts.events import Event
from frond.contracts.topics import MAX_MESSAGE_BYTES, Topic

_WINDOW: Final = 500


def is_outage(error: BaseException) -> bool:
    """Whether what kept events from being sent passes, and sending them again is right."""
    outage = (BrokerUnavailable, KafkaError, OSError, asyncio.CancelledError)
    return isinstance(error, outage) and not isinstance(error, MessageSizeTooLargeError)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event on its way: where to, and under which key if not its own.

    ``turn``: where order within a key means nothing, partitions are served in turn, this one being
    the turn of partition ``turn`` modulo their number. A few hundred keys would lie unevenly, and
    the fullest partition ends last.
    """

    topic: Topic
    event: Event
    key: str | None = None
    turn: int | None = None


class Sent(NamedTuple):
    """Where an acknowledged message lies."""

    partition: int
    offset: int


class EventProducer:
    """Events out, at least once.

    Kafka's idempotent producer is left off: every reader recognises an event that comes twice, and
    without it an expired batch leaves no sequence to repair.
    """

    def __init__(self, bootstrap: str, prefix: str, source: str) -> None:
        self.bootstrap = bootstrap
        self.prefix = prefix
        self.source = source
        self._producer: AIOKafkaProducer | None = None
        self._outbox: Outbox | None = None
        self._sending: set[asyncio.Future[list[Sent]]] = set()

    async def start(self) -> None:
        """Connect. Raises BrokerUnavailable."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap, acks="all", linger_ms=2,
            request_timeout_ms=20_000, max_request_size=MAX_MESSAGE_BYTES,
            max_batch_size=BATCH_BYTES, partitioner=place,
        )  # fmt: skip
        try:
            await producer.start()
        except (KafkaError, OSError) as e:
            await producer.stop()
            raise BrokerUnavailable(f"{self.bootstrap}: {e}") from e
        self._producer, self._outbox = producer, Outbox(producer)

    async def stop(self) -> None:
        """Send what is buffered, then disconnect. What was posted and is not sent is given up."""
        if self._producer is not None and self._outbox is not None:
            await self._outbox.close()
            await self._producer.stop()
            self._producer = self._outbox = None

    async def send(
        self, out: Outgoing | Sequence[Outgoing], *, traceparent: str | None = None
    ) -> list[Sent]:
        """Send events and wait until the broker has them all; returns where each of them lies.

        Raises:
            BrokerUnavailable: not all of them were acknowledged; sending them again is right.
        """
        batch = [out] if isinstance(out, Outgoing) else out
        if len(batch) == 1:
            return [await self._send_event(batch[0], traceparent)]
        sent: list[Sent] = []
        for i in range(0, len(batch), _WINDOW):
            sent += await asyncio.gather(
                *(self._send_event(o, traceparent) for o in batch[i : i + _WINDOW])
            )
        return sent

    def post(self, out: Sequence[Outgoing], told: Told, *, traceparent: str | None = None) -> None:
        """Send events without waiting; what became of them is told later.

        Args:
            told: called once: without an error when the broker has them all, else as :meth:`send`
                raises, or with an error of aiokafka's.
        """
        if self._outbox is None:
            raise BrokerUnavailable("the producer is not started")
        if len(out) != 1 or out[0].turn is not None:
            sending = asyncio.ensure_future(self.send(out, traceparent=traceparent))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)
            sending.add_done_callback(
                lambda s: told(asyncio.CancelledError() if s.cancelled() else s.exception())
            )
            return
        one = out[0]
        message = encode(one.event, source=self.source, traceparent=traceparent, key=one.key)
        self._outbox.post(one.topic.named(self.prefix), message, told)

    async def _send_event(self, out: Outgoing, traceparent: str | None) -> Sent:
        message = encode(out.event, source=self.source, traceparent=traceparent, key=out.key)
        return await self.send_raw(
            out.topic, message.key, message.value, message.headers, turn=out.turn
        )

    async def send_raw(
        self,
        topic: Topic,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        *,
        turn: int | None = None,
    ) -> Sent:
        """Send bytes as they are (dead letters, replays, stored events).

        Raises:
            BrokerUnavailable: not acknowledged.
            FrondError: larger than the topic takes.
        """
        if self._producer is None:
            raise BrokerUnavailable("the producer is not started")
        if key is None and value is None:
            key = b""  # aiokafka refuses what Kafka allows, and a dead letter may have neither
        name, partition = topic.named(self.prefix), None
        try:
            if turn is not None:
                partitions = sorted(await self._producer.partitions_for(name))
                if not partitions:
                    raise BrokerUnavailable(f"{name} has no partitions just now")
                partition = partitions[turn % len(partitions)]
            told = await self._producer.send_and_wait(
                name, value, key=key, partition=partition, headers=headers
            )
        except MessageSizeTooLargeError as e:
            # no outage: it would never get through
            raise FrondError(f"{topic.name}: a message of {len(value or b'')} bytes: {e}") from e
        except (KafkaError, OSError) as e:
            raise BrokerUnavailable(f"{topic.name}: {type(e).__name__}: {e}") from e
        except asyncio.CancelledError as e:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # aiokafka lets one of its own out
            raise BrokerUnavailable(f"{topic.name}: the sending was cancelled") from e
        return Sent(told.partition, told.offset)
