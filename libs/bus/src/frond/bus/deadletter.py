"""Dead letters: a message that cannot be handled, kept as it was, with where and why.

The value, the key and the original headers stay as they are; what we know is added in headers
that begin with ``dlq_``. An original header that begins so itself (a dead letter was sent to a
topic again by hand, say) lies there as ``orig_dlq_…``, and one of that name as ``orig_orig_dlq_…``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from frond.contracts.envelope import Headers
from frond.contracts.ids import digest

PREFIX = "dlq_"
_ORIGINAL = "orig_"
_OURS = re.compile(rf"(?:{_ORIGINAL})*{PREFIX}")
_NUMBER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter. ``id`` is made from topic, partition and offset: the same twice is one."""

    topic: str
    partition: int
    offset: int
    group: str
    reason: str
    detail: str
    trace_id: str
    attempts: int
    time: str
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def id(self) -> str:
        return digest("dead", self.topic, str(self.partition), str(self.offset), self.group)[:16]

    def to_headers(self) -> Headers:
        """The headers of the message on the dead-letter topic."""
        told = {
            "id": self.id, "topic": self.topic, "partition": str(self.partition),
            "offset": str(self.offset), "group": self.group, "reason": self.reason,
            "detail": self.detail[:2000], "trace_id": self.trace_id,
            "attempts": str(self.attempts), "time": self.time,
        }  # fmt: skip
        own = ((_ORIGINAL + k if _OURS.match(k) else k, v) for k, v in self.headers)
        return [*own, *((PREFIX + k, _utf8(v)) for k, v in told.items())]

    @classmethod
    def from_message(cls, key: bytes | None, value: bytes | None, headers: Headers) -> DeadLetter:
        """Read one back from the dead-letter topic. What is no number there counts as unknown."""
        told = {k: v.decode("utf-8", "replace") for k, v in headers if k.startswith(PREFIX)}

        def get(name: str) -> str:
            return told.get(PREFIX + name, "")

        return cls(
            topic=get("topic"), partition=_number(get("partition"), -1),
            offset=_number(get("offset"), -1), group=get("group"), reason=get("reason"),
            detail=get("detail"), trace_id=get("trace_id"), attempts=_number(get("attempts"), 0),
            time=get("time"), key=key, value=value,
            headers=[
                (k.removeprefix(_ORIGINAL) if _OURS.match(k) else k, v)
                for k, v in headers
                if not k.startswith(PREFIX)
            ],
        )  # fmt: skip


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _number(text: str, unknown: int) -> int:
    return int(text) if _NUMBER.fullmatch(text) else unknown


def now() -> str:
    """The wall clock as dead letters carry it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
