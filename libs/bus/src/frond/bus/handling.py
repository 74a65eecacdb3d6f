"""One message from taking it up to its effects being durable: decode, hand over, retry, bury."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from frond.bus import metrics
from frond.bus.deadletter import DeadLetter, now
from frond.bus.producer import EventProducer, Outgoing
from frond.contracts import topics
from frond.contracts.envelope import Envelope, Headers, decode
from frond.contracts.errors import UnreadableEvent
from frond.contracts.reasons import Reason
from frond.contracts.topics import Topic
from frond.runtime import get_logger, maybe_crash_point, wait_out

Handler = Callable[[Envelope], Awaitable[Sequence[Outgoing]]]
Unreadable = Callable[[bytes | None, Headers, UnreadableEvent], Awaitable[Sequence[Outgoing]]]
GiveUp = Callable[[Envelope, Exception], Awaitable[Sequence[Outgoing]]]

_ATTEMPTS: Final = 3
_log = get_logger(__name__)


class Handling:
    """What is done with each message of a topic; the hooks are those of ``consume``."""

    def __init__(
        self,
        topic: Topic,
        group: str,
        handler: Handler,
        producer: EventProducer,
        *,
        unreadable: Unreadable | None = None,
        give_up: GiveUp | None = None,
        service: str = "",
    ) -> None:
        self.service = service
        self.topic = topic
        self.group = group
        self.handler = handler
        self.producer = producer
        self.unreadable = unreadable
        self.on_give_up = give_up
        self._in_flight = metrics.IN_FLIGHT.labels(topic.name)
        self._seconds = metrics.HANDLING.labels(topic.name)

    async def handle(self, message: Any, handled: Callable[[], None] = lambda: None) -> None:
        """Return once the message's effects, or its dead letter, are durable.

        Args:
            handled: called, once or more, when what is left to do is the broker's: to take what the
                handler returned.
        """
        started = time.monotonic()
        with self._in_flight.track_inprogress():
            try:
                envelope = decode(self.topic, message.value, _headers(message))
            except UnreadableEvent as e:
                if self.unreadable is not None:
                    await self._also(partial(self.unreadable, message.value, _headers(message), e))
                await self._bury(message, Reason.BAD_REQUEST, str(e), "", 1)
            else:
                await self._apply(envelope, message, handled)
        self._seconds.observe(time.monotonic() - started)

    async def _apply(self, envelope: Envelope, message: Any, handled: Callable[[], None]) -> None:
        out: Sequence[Outgoing] | None = None

        async def once() -> None:
            nonlocal out
            if out is None:
                out = await wait_out(partial(self.handler, envelope), what=envelope.event.TYPE)
                maybe_crash_point(f"{self.service}.handled")
                handled()
            if out:
                # only this is done again, whatever fails: the handler has no hand any more
                send = partial(self.producer.send, out, traceparent=envelope.traceparent)
                await wait_out(send, what="sending")
                maybe_crash_point(f"{self.service}.sent")

        error: Exception | None = None
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await once()
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
            maybe_crash_point(f"{self.service}.ledger-told")

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
        maybe_crash_point(f"{self.service}.buried")


def _headers(message: Any) -> Headers:
    return [(k, v or b"") for k, v in message.headers or ()]
