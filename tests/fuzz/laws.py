"""The laws that every consumer's target holds its messages to, and the producer that checks them."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ClassVar, TypeVar

import structlog

from frond.bus import DeadLetter, EventProducer, Outgoing
from frond.bus.producer import Sent
from frond.contracts import errors, keys, topics
from frond.contracts.envelope import MAX_EVENT_BYTES, Envelope, Headers, decode, encode
from frond.contracts.errors import FrondError
from frond.contracts.events import ImageRejected
from frond.contracts.ids import JOB_ID_PATTERN
from frond.contracts.reasons import Reason
from frond.contracts.topics import Topic

T = TypeVar("T")
_TREE = {n for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, FrondError)}
_OF_A_JOB = re.compile(rf"(jobs|open|deliveries|untold)/({JOB_ID_PATTERN[1:-1]})(/.*)?", re.DOTALL)
_OF_TRAINING = re.compile(
    r"trainings/(runs/[0-9a-f]{32}\.json|open/[0-9a-f]{32}|listed/[0-9]{15}-[0-9a-f]{32}"
    r"|drift/[0-9a-f]{64}\.json)"
)
_IMAGE = re.compile(r"images/[0-9a-f]{32}/[^/]+(/[^/]+)?")


class Broken(AssertionError):
    """A law was broken: what atheris reports and a replay fails with.

    Consumers catch whatever a handler raises; what was broken is remembered here all the same.
    """

    ever: ClassVar[list[Broken]] = []

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.ever.append(self)


def checked(work: Callable[[], None]) -> None:
    """Do the work, and raise the first law that it broke, however well that was hidden."""
    Broken.ever.clear()
    work()
    if Broken.ever:
        raise Broken.ever[0]


def quiet() -> None:
    """Logs cost more than what is looked for."""
    logging.disable(logging.CRITICAL)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False
    )


class Runner:
    """One event loop for all inputs, and a time that none of them may take."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        asyncio.set_event_loop(self.loop)
        try:
            return self.loop.run_until_complete(asyncio.wait_for(work, 20))
        finally:
            asyncio.set_event_loop(None)


class CheckingProducer(EventProducer):
    """Sends nothing: holds what is sent to the laws, and keeps it."""

    def __init__(self) -> None:
        super().__init__("", "", "/fuzz")
        self.sent: list[tuple[Topic, bytes | None]] = []
        self.letters: list[DeadLetter] = []

    async def send(
        self, out: Outgoing | Sequence[Outgoing], *, traceparent: str | None = None
    ) -> list[Sent]:
        for one in [out] if isinstance(out, Outgoing) else out:
            m = encode(one.event, source="/fuzz", traceparent=traceparent, key=one.key)
            again = decode(one.topic, m.value, m.headers).event
            if again != one.event or encode(again, source="/fuzz").value != m.value:
                raise Broken(f"{one.topic.name}: {one.event!r} comes back as {again!r}")
            if isinstance(one.event, ImageRejected) and one.event.reason is Reason.INTERNAL:
                raise Broken(f"an image was rejected for a reason of our own: {one.event!r}")
        return await super().send(out, traceparent=traceparent)

    async def send_raw(
        self,
        topic: Topic,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        *,
        turn: int | None = None,
    ) -> Sent:
        size = len(value or b"") + len(key or b"") + sum(len(k) + len(v) for k, v in headers)
        if size > int(topic.settings()["max.message.bytes"]):
            raise Broken(f"{topic.name} does not take {size} bytes")
        for name, _ in headers:
            name.encode()
        if topic is topics.DEADLETTER:
            self._bury(DeadLetter.from_message(key, value, headers))
        self.sent.append((topic, value))
        return Sent(0, len(self.sent))

    def _bury(self, letter: DeadLetter) -> None:
        Reason(letter.reason)
        if not letter.detail:
            raise Broken("a dead letter without a reason")
        if letter.reason == Reason.INTERNAL and letter.detail.partition(":")[0] not in _TREE:
            raise Broken(f"handled by accident only: {letter.detail}")
        self.letters.append(letter)


def strict(hook: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """The hook, with what it raises beside the tree of errors made a broken law."""

    async def checked(*args: Any) -> T:
        try:
            return await hook(*args)
        except (FrondError, Broken):
            raise
        except Exception as e:
            raise Broken(f"{type(e).__name__} out of {hook.__qualname__}: {e}") from e

    return checked


def round_trip(topic: Topic, envelope: Envelope) -> None:
    """What passed decode can be encoded again, and is then what it was."""
    m = encode(envelope.event, source=envelope.source, traceparent=envelope.traceparent)
    if len(m.value) > 4 * MAX_EVENT_BYTES:
        raise Broken(f"{len(m.value)} bytes when encoded again")
    again = decode(topic, m.value, m.headers)
    if again.event != envelope.event or again.traceparent != envelope.traceparent:
        raise Broken(f"{envelope.event!r} comes back as {again.event!r}")
    json.loads(m.value, parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise Broken(f"{name} is no JSON")


def check_names(written: Sequence[str]) -> None:
    """Every object that was written lies in the folder of a job, or of training runs, under names made
    of ids."""
    for key in written:
        if _OF_TRAINING.fullmatch(key):
            continue
        m = _OF_A_JOB.fullmatch(key)
        if m is None or ".." in key.split("/") or len(key.encode()) > 1024:
            raise Broken(f"an object {key!r}")
        rest = key.removeprefix(keys.job_prefix(m.group(2)))
        if rest.startswith("images/") and not _IMAGE.fullmatch(rest):
            raise Broken(f"an object {key!r}")
