"""Fuzz inputs as raw Kafka messages, and back.

An input is up to eight messages. A message is a byte that says how many headers it has, then its
key, its headers as name and value, and its value, apart by control characters that JSON never
holds as they are. A field of ``~`` alone is null.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from frond.contracts.topics import Topic

MOST_MESSAGES = 8
_MESSAGE, _FIELD, _VALUE = b"\x1c", b"\x1d", b"\x1f"
_NULL = b"~"
_WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GOLDEN = Path(__file__).parents[2] / "contracts" / "golden"


@dataclass(frozen=True)
class Raw:
    """What a consumer is handed; as much of aiokafka's ConsumerRecord as is looked at."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    partition: int = 0
    offset: int = 0
    timestamp: int = 1_767_323_045_000
    topic: str = ""
    generation_id: int = field(default=0, compare=False)


def unpack(data: bytes) -> list[Raw]:
    """The messages of an input: any bytes are some."""
    out = []
    for offset, one in enumerate(data.split(_MESSAGE, MOST_MESSAGES - 1)):
        count, rest = (min(one[0], 12), one[1:]) if one else (0, b"")
        parts = rest.split(_FIELD, count + 1)
        key, headers, value = parts[0], parts[1:-1], parts[-1]
        if len(parts) == 1:
            key = b""
        out.append(
            Raw(
                value=_null(value), key=_null(key), offset=offset,
                headers=tuple(_header(h) for h in headers),
            )
        )  # fmt: skip
    return out


def pack(messages: Iterable[Raw]) -> bytes:
    """An input that is these messages."""
    out = []
    for m in messages:
        fields = [_bytes(m.key), *(n.encode() + _VALUE + _bytes(v) for n, v in m.headers)]
        out.append(bytes([len(m.headers)]) + _FIELD.join([*fields, _bytes(m.value)]))
    return _MESSAGE.join(out)


def golden(topic: Topic) -> list[Raw]:
    """The recorded events that this topic carries, as they come over the wire."""
    from frond.contracts.carried import CARRIES, EVENTS
    from frond.contracts.envelope import encode

    found = []
    for path in sorted(GOLDEN.glob("*.json")):
        recorded = json.loads(path.read_text())
        cls = EVENTS[recorded["ce_type"]]
        if cls in CARRIES[topic.name]:
            m = encode(cls.model_validate(recorded["data"]), source="/fuzz", time=_WHEN)
            headers = tuple((k, v) for k, v in m.headers if k in ("ce_type", "ce_time"))
            found.append(Raw(value=m.value, key=m.key, headers=headers))
    return found


def _header(text: bytes) -> tuple[str, bytes | None]:
    name, _, value = text.partition(_VALUE)
    # as the consumers read names: see frond.bus.records
    return name.decode("utf-8", "backslashreplace"), _null(value)


def _null(text: bytes) -> bytes | None:
    return None if text == _NULL else text


def _bytes(value: bytes | None) -> bytes:
    return _NULL if value is None else value
