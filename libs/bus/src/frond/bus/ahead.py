"""What a consumer has read ahead: bounded, and handed out in turns between jobs.

Reading ahead is what makes turns possible: on a partition, a small job's events stand behind a big
one's. Its bound is the distance at which a small job is seen.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition

from frond.bus.fair import FairQueue

MAX_BYTES = 32 << 20
_BATCH = 500
# as we write events: where this name is there once, and none is escaped, a JSON reader finds it too
_OURS = re.compile(rb'\{"job_id":"([A-Za-z0-9._-]+)"[,}]')
_OVERHEAD = 1500  # of a record as Python objects, beside its bytes


@dataclass(frozen=True, slots=True)
class Read:
    """A message that was read and not yet taken up."""

    partition: TopicPartition
    message: Any
    size: int


class Ahead:
    """The messages read ahead by one consumer.

    Args:
        events: how many messages at most, all partitions together; each has an equal share, so
            that a long partition does not hide the others.
        max_bytes: the same for their bytes, give or take the last batch read.
    """

    def __init__(self, events: int, max_bytes: int = MAX_BYTES) -> None:
        self._events = events
        self._max_bytes = max_bytes
        self._queue: FairQueue[Read] = FairQueue()
        self._count: Counter[TopicPartition] = Counter()
        self._bytes: Counter[TopicPartition] = Counter()

    def __len__(self) -> int:
        return len(self._queue)

    def of(self, partition: TopicPartition) -> int:
        """How many messages of a partition wait here."""
        return self._count[partition]

    def room(self, partitions: Collection[TopicPartition]) -> list[TopicPartition]:
        """Those of the partitions of which more may be read."""
        if len(self) >= self._events:
            return []
        n = max(1, len(partitions))
        most, most_bytes = max(1, self._events // n), max(1, self._max_bytes // n)
        return [p for p in partitions if self._count[p] < most and self._bytes[p] < most_bytes]

    def batch(self, partitions: int) -> int:
        """How many messages to read at once while there is room: no more than one share."""
        share = self._events // max(1, partitions)
        return max(1, min(_BATCH, share, self._events - len(self)))

    def add(self, partition: TopicPartition, message: Any) -> None:
        """Queue a message that was read."""
        size = _size(message)
        self._queue.push(job_of(message.value), Read(partition, message, size))
        self._count[partition] += 1
        self._bytes[partition] += size

    def next(self, held: Callable[[str], bool]) -> Read | None:
        """The message whose turn it is; None when there is none whose job is not held back."""
        read = self._queue.pop(held)
        if read is not None:
            self._count[read.partition] -= 1
            self._bytes[read.partition] -= read.size
        return read

    def forget(self, partition: TopicPartition) -> None:
        """Drop what was read of a partition: it is somebody else's now."""
        self._queue.drop(lambda read: read.partition == partition)
        del self._count[partition], self._bytes[partition]


def job_of(value: bytes | None) -> str:
    """The job that a message says it is of; "" for one that cannot be read, which all share a turn.

    The value is what counts, for headers are whatever a sender likes.
    """
    if (
        value is not None
        and (ours := _OURS.match(value))
        and value.count(b'"job_id"') == 1
        and b"\\u" not in value
    ):
        return ours[1].decode()
    try:
        job = json.loads(value or b"")["job_id"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return ""
    return job if isinstance(job, str) else ""


def _size(message: Any) -> int:
    headers = sum(len(k) + len(v or b"") for k, v in message.headers)
    return len(message.value or b"") + len(message.key or b"") + headers + _OVERHEAD
