"""CloudEvents 1.0 on Kafka, binary mode: attributes in ``ce_*`` headers, the data as JSON value.

The source is the CloudEvents Kafka protocol binding 1.0.2. Trace context travels as the
``traceparent`` header of W3C Trace Context.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from frond.contracts import topics
from frond.contracts.carried import CARRIES, EVENTS, bare_type, structured_data
from frond.contracts.errors import UnreadableEvent
from frond.contracts.events import Event
from frond.contracts.ids import JOB_ID_IN_WORDS
from frond.contracts.topics import Topic

Headers = list[tuple[str, bytes]]

MAX_EVENT_BYTES: Final = 1 << 20
_HEADERS: Final = {"ce_specversion", "ce_source", "ce_type", "ce_time", "traceparent"}
_OTHER_FORMATS: Final = (
    (
        b"\x00",
        "it begins with a zero byte, as what serializers of a schema registry make of Avro, Protobuf "
        "or JSON. Send JSON as plain text",
    ),
    (
        b"\x1f\x8b",
        "it is a gzip file. Send JSON as plain text; the producer may compress messages by its own "
        "setting (compression.type)",
    ),
)
"""How values begin that are often sent by mistake, and what to do."""
_TRACEPARENT = re.compile(r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")


def new_traceparent() -> str:
    """A fresh W3C trace context with the sampled flag."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


@dataclass(frozen=True, slots=True)
class Message:
    """A Kafka message, ready to send: key, value and headers."""

    key: bytes
    value: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event as it was received."""

    event: Event
    traceparent: str
    source: str = ""
    time: datetime | None = None
    """When it happened; UTC where its sender names no zone."""

    @property
    def trace_id(self) -> str:
        return self.traceparent.split("-")[1]


def encode(
    event: Event,
    *,
    source: str,
    traceparent: str | None = None,
    key: str | None = None,
    time: datetime | None = None,
) -> Message:
    """An event as a Kafka message.

    Args:
        source: who sends it, e.g. ``/frond/tiler``.
        traceparent: the trace that caused it; a new one is begun without.
        key: overrides the event's own partition key.
        time: when it happened; now by default.
    """
    headers = [
        *_fixed(source, event.TYPE),
        ("ce_id", event.event_id.encode()),
        ("ce_time", (time or datetime.now(UTC)).isoformat().replace("+00:00", "Z").encode()),
        ("ce_subject", event.subject.encode()),
        ("traceparent", (traceparent or new_traceparent()).encode()),
    ]
    return Message(
        key=(event.partition_key() if key is None else key).encode(),
        # what model_dump_json makes, without turning it into text first
        value=event.__pydantic_serializer__.to_json(event, exclude_none=True),
        headers=headers,
    )


@lru_cache(maxsize=100)
def _fixed(source: str, kind: str) -> tuple[tuple[str, bytes], ...]:
    return (
        ("ce_specversion", b"1.0"),
        ("ce_source", source.encode()),
        ("ce_type", kind.encode()),
        ("content-type", b"application/json"),
    )


def decode(
    topic: Topic, value: bytes | None, headers: Iterable[tuple[str, bytes | None]] = ()
) -> Envelope:
    """Read a message of this topic.

    Raises:
        UnreadableEvent: with a sentence that says what is wrong. Nothing else is raised, whatever
            the bytes.
    """
    head = {
        name: (v or b"").decode("utf-8", "replace")
        for k, v in headers
        if (name := k.lower()) in _HEADERS
    }
    if value is None:
        raise UnreadableEvent("the message has no value")
    if len(value) > MAX_EVENT_BYTES:
        raise UnreadableEvent(f"the value has {len(value)} bytes, more than {MAX_EVENT_BYTES}")
    event = _read_at_once(topic, head, value)
    if event is None:
        event = _read(topic, head, value)
    trace = head.get("traceparent", "")
    return Envelope(
        event=event,
        traceparent=trace if _TRACEPARENT.match(trace) else new_traceparent(),
        source=head.get("ce_source", ""),
        time=_time(head.get("ce_time")),
    )


def _read_at_once(topic: Topic, head: dict[str, str], value: bytes) -> Event | None:
    """What :func:`_read` makes of a value that leaves nothing to say; None where it must judge."""
    cls = EVENTS.get(head.get("ce_type", ""))
    if cls is None or cls not in CARRIES[topic.name]:
        return None
    if not head.get("ce_specversion", "1.0").startswith("1."):
        return None
    try:
        return cls.model_validate_json(value)
    except ValueError:
        return None


def _read(topic: Topic, head: dict[str, str], value: bytes) -> Event:
    try:
        data = json.loads(value)
    except (ValueError, RecursionError) as e:
        raise UnreadableEvent(f"the value is not JSON: {_no_json(value, e)}") from None
    if not _is_text(value, data):
        raise UnreadableEvent("the value holds half a character (a lone surrogate)")
    if not isinstance(data, dict):
        raise UnreadableEvent(f"the value is a JSON {type(data).__name__}, not an object")
    if not head.get("ce_specversion", "1.0").startswith("1."):
        told = head["ce_specversion"][:20]
        raise UnreadableEvent(f"the message is of CloudEvents {told!r}; 1.0 is read here")
    cls = _class_of(topic, head, data)
    try:
        return cls.model_validate(data)
    except ValidationError as e:
        raise UnreadableEvent(f"the value is no {cls.TYPE}: {_told(e)}") from None
    except RecursionError:
        raise UnreadableEvent("the value is nested too deeply") from None


def _no_json(value: bytes, error: Exception) -> str:
    if not value:
        return "it is empty"
    return next((told for begin, told in _OTHER_FORMATS if value.startswith(begin)), str(error))


def _is_text(value: bytes, data: object) -> bool:
    """Whether what was read can be written again: pydantic lets a mapping's keys through."""
    if value.isascii() and b"\\u" not in value:
        return True
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _class_of(topic: Topic, head: dict[str, str], data: dict[str, object]) -> type[Event]:
    declared = head.get("ce_type")
    if declared is None:
        bare = bare_type(topic, data)
        if bare is None:
            raise UnreadableEvent(_untyped(topic, data))
        return bare
    cls = EVENTS.get(declared)
    if cls is None or cls not in CARRIES[topic.name]:
        there = ", ".join(c.TYPE for c in CARRIES[topic.name])
        raise UnreadableEvent(f"{topic.name} carries no {declared[:100]!r}, only: {there}")
    return cls


def _untyped(topic: Topic, data: dict[str, object]) -> str:
    if structured_data(data) is not None:
        return (
            "the message is a CloudEvent in structured mode, and binary mode is read here: send its "
            "data alone as the value, and its attributes, if at all, as headers (ce_type, ce_id)"
        )
    if topic is topics.UPLOADED:
        return "the value has neither a field image nor, to seal a job, job_size"
    return "the message has no ce_type header"


def in_words(error: ErrorDetails) -> str:
    """What pydantic finds wrong with a field, for people who send JSON."""
    if error["type"] in ("model_type", "dict_type"):
        return "Input should be an object"
    if error["loc"] == ("job_id",) and error["type"] == "string_pattern_mismatch":
        return JOB_ID_IN_WORDS
    return error["msg"].removeprefix("Value error, ")


def _told(e: ValidationError) -> str:
    parts = [".".join(str(p) for p in err["loc"]) + ": " + in_words(err) for err in e.errors()[:5]]
    # a field's name may hold what no UTF-8 text can
    return "; ".join(parts)[:1000].encode("utf-8", "backslashreplace").decode()


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        return None
    # not the zone of whichever machine reads it
    return told if told.tzinfo else told.replace(tzinfo=UTC)
