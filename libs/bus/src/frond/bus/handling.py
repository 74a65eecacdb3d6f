"""One message from taking it up to its effects being durable: decode, hand over, retry, bury."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from frond.bus import metrics
from frond.bus.deadletter import DeadLetter, now
from frond.bus.outbox import Told
from frond.bus.producer import EventProducer, Outgoing, is_outage
from frond.contracts import topics
from frond.contracts.carried import CARRIES
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


@dataclass(slots=True)
class Made:
    """What a handler made of a message, to be sent."""

    message: Any
    envelope: Envelope
    out: Sequence[Outgoing]
    attempts: int
    """How many of the three are used up."""
    started: float


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
        self._seconds = metrics.HANDLING.labels(topic.name)
        self._dead = metrics.DEAD.labels(topic.name)
        self._handled = {
            cls.TYPE: metrics.HANDLED.labels(topic.name, cls.TYPE)
            for cls in CARRIES.get(topic.name, ())
        }

    async def handle(self, message: Any) -> None:
        """Return once the message's effects, or its dead letter, are durable."""
        made = await self.take(message)
        if made is None:
            return
        sent: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self.post(made, lambda error: None if sent.done() else sent.set_result(error))
        if (error := await sent) is not None:
            await self.send_again(made, error)
        else:
            self.done(made)

    async def take(self, message: Any) -> Made | None:
        """Decode a message and hand it over; None when that was all: its effects, or its dead
        letter, are durable. What else was made of it is to be posted."""
        started = time.monotonic()
        try:
            envelope = decode(self.topic, message.value, message.headers or ())
        except UnreadableEvent as e:
            if self.unreadable is not None:
                await self._also(partial(self.unreadable, message.value, _headers(message), e))
            await self._bury(message, Reason.BAD_REQUEST, str(e), "", 1)
            self._seconds.observe(time.monotonic() - started)
            return None
        made = Made(message, envelope, (), 0, started)
        call = partial(self.handler, envelope)
        while True:
            try:
                made.out = await wait_out(call, what=envelope.event.TYPE)
                maybe_crash_point(f"{self.service}.handled")
            except Exception as e:
                if not await self._tried_in_vain(made, e):
                    continue
                return None
            if made.out:
                return made
            self._count(made)
            return None

    def post(self, made: Made, told: Told) -> None:
        """Send what was made. When the broker has it all, ``told`` is called, and :meth:`done` is
        due; or it is called with an error, and :meth:`send_again` is due."""
        try:
            self.producer.post(made.out, told, traceparent=made.envelope.traceparent)
        except Exception as e:
            told(e)

    def done(self, made: Made) -> None:
        """The broker has it all."""
        maybe_crash_point(f"{self.service}.sent")
        self._count(made)

    async def send_again(self, made: Made, error: BaseException) -> None:
        """After sending failed: return once all of it is sent, or the message is buried.

        Only this is done again, whatever fails: the handler has no hand any more.
        """
        send = partial(self.producer.send, made.out, traceparent=made.envelope.traceparent)
        if not is_outage(error) and await self._tried_in_vain(made, error):
            return
        while True:
            try:
                await wait_out(send, what="sending")
            except Exception as e:
                if await self._tried_in_vain(made, e):
                    return
            else:
                self.done(made)
                return

    def _count(self, made: Made) -> None:
        self._seconds.observe(time.monotonic() - made.started)
        self._handled[made.envelope.event.TYPE].inc()

    async def _tried_in_vain(self, made: Made, error: BaseException) -> bool:
        """Count an attempt that failed; True if it was the last one, and the message is buried."""
        made.attempts += 1
        envelope = made.envelope
        _log.error(
            "handling an event failed", attempt=made.attempts, job_id=envelope.event.subject,
            type=envelope.event.TYPE, trace_id=envelope.trace_id, exc_info=error,
        )  # fmt: skip
        if made.attempts < _ATTEMPTS:
            return False
        if self.on_give_up is not None and isinstance(error, Exception):
            await self._also(partial(self.on_give_up, envelope, error))
        await self._bury(
            made.message, Reason.INTERNAL, f"{type(error).__name__}: {error}", envelope.trace_id,
            _ATTEMPTS,
        )  # fmt: skip
        self._seconds.observe(time.monotonic() - made.started)
        return True

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
        self._dead.inc()
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
