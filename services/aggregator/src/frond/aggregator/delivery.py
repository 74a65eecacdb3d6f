"""One message's way: read, handled, and in any case brought to an end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from frond.bus import DeadLetter, EventProducer
from frond.bus import metrics as bus_metrics
from frond.bus.deadletter import now
from frond.contracts import topics
from frond.contracts.envelope import Envelope, decode
from frond.contracts.errors import UnreadableEvent
from frond.contracts.reasons import Reason
from frond.contracts.topics import Topic
from frond.runtime import crash_point, get_logger, wait_out

_ATTEMPTS: Final = 3
_log = get_logger(__name__)

Handle = Callable[[Envelope], Awaitable[None]]


@dataclass(frozen=True)
class Delivery:
    """Brings a topic's messages to their stage.

    Attributes:
        handle: takes an event in; may be called again for one it has handled.
        give_up: closes the ledger of an event that could not be handled.
    """

    topic: Topic
    handle: Handle
    give_up: Handle
    producer: EventProducer
    group: str

    async def __call__(self, message: Any) -> None:
        """Handle a message to the end: when this returns it may be acknowledged.

        Outages are waited out. What is no event, or fails three times, is a dead letter.
        """
        started = time.monotonic()
        with bus_metrics.IN_FLIGHT.labels(self.topic.name).track_inprogress():
            try:
                envelope = decode(self.topic, message.value, message.headers or ())
            except UnreadableEvent as e:
                await self._bury(message, Reason.BAD_REQUEST, str(e), "", 0)
            else:
                await self._apply(message, envelope)
        bus_metrics.HANDLING.labels(self.topic.name).observe(time.monotonic() - started)

    async def _apply(self, message: Any, envelope: Envelope) -> None:
        event = envelope.event
        error: Exception | None = None
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await wait_out(lambda: self.handle(envelope), what=event.TYPE)
            except Exception as e:
                error = e
                _log.error(
                    "handling an event failed", attempt=attempt, job_id=event.job_id,
                    type=event.TYPE, trace_id=envelope.trace_id, exc_info=e,
                )  # fmt: skip
            else:
                bus_metrics.HANDLED.labels(self.topic.name, event.TYPE).inc()
                return
        detail = f"{type(error).__name__}: {error}"
        await self._bury(message, Reason.INTERNAL, detail, envelope.trace_id, _ATTEMPTS)
        try:
            await wait_out(lambda: self.give_up(envelope), what="closing a ledger")
        except Exception as e:
            _log.error("a ledger cannot be closed", job_id=event.job_id, exc_info=e)

    async def _bury(
        self, message: Any, reason: Reason, detail: str, trace_id: str, attempts: int
    ) -> None:
        letter = DeadLetter(
            topic=self.topic.name, partition=message.partition, offset=message.offset,
            group=self.group, reason=reason.value, detail=detail, trace_id=trace_id,
            attempts=attempts, time=now(), key=message.key, value=message.value,
            headers=[(k, v or b"") for k, v in message.headers or ()],
        )  # fmt: skip
        bus_metrics.DEAD.labels(self.topic.name).inc()
        _log.warning("dead letter", id=letter.id, topic=letter.topic, detail=detail)
        await wait_out(
            lambda: self.producer.send_raw(
                topics.DEADLETTER, letter.key, letter.value, letter.to_headers()
            ),
            what="sending a dead letter",
        )
        crash_point("aggregator.buried")
