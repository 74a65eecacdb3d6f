"""The job stage's decisions: an image's outcome in, the job's next state and what to do out.

A job is a small record and sets of image ids in 4,096 buckets (the first 12 bits of the id), so
that an update rewrites one of these: 600 bytes in a job of 100,000 images, 52 KB in one of ten
million. Ids are hashes of names that others choose, so that many may be made to fall into one
bucket: one of 4,096 ids, about 90 KB, takes no more, and what comes goes by the next 12 bits. Sums
are kept beside the ids they are sums of, in one value, and an image is added only when its id is
new: no order, copy or crash can count it twice.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import Final

from frond.contracts.events import ImageFinished, JobStatusChanged
from frond.contracts.jobs import ImageCounts, ImageStatus, JobStatus, Timings, WindowCounts

BUCKETS: Final = 4096
MOST_IDS: Final = 4096
"""Of a bucket; those of a job of ten million images have 2,441 as a rule."""
_DIGITS: Final = 3
_ID: Final = 16
_FULL_BYTES: Final = MOST_IDS * _ID * 4 // 3
"""What the ids of a full bucket take at least, in base64."""


class Next(Enum):
    """What follows from an event."""

    WAIT = auto()
    CLOSE = auto()
    """Sealed and every image is there, or cancelled: write the results, tell."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What is known of a job that has not ended.

    Attributes:
        size: how many images it has, as stored; None until somebody said it.
    """

    size: int | None = None
    cancelled: bool = False

    def to_bytes(self) -> bytes:
        return json.dumps({"size": self.size, "cancelled": self.cancelled}).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> JobRecord:
        data = json.loads(raw)
        return cls(size=data["size"], cancelled=data["cancelled"])


@dataclass(frozen=True, slots=True)
class Bucket:
    """Some of a job's finished images, and the sums over exactly these."""

    completed: frozenset[bytes] = frozenset()
    failed: frozenset[bytes] = frozenset()
    windows: WindowCounts = field(default_factory=WindowCounts)
    detections: dict[str, int] = field(default_factory=dict)
    timings: Timings = field(default_factory=Timings)

    def __contains__(self, image: bytes) -> bool:
        return image in self.completed or image in self.failed

    @property
    def full(self) -> bool:
        """Whether no image is added any more; those of an older version may be fuller."""
        return len(self.completed) + len(self.failed) >= MOST_IDS

    def add(self, event: ImageFinished) -> Bucket:
        """With this image; itself when it holds the image already."""
        outcome = event.outcome
        image = bytes.fromhex(outcome.image_id)
        if image in self:
            return self
        one = frozenset((image,))
        done = outcome.status is ImageStatus.COMPLETED
        return Bucket(
            completed=self.completed | one if done else self.completed,
            failed=self.failed if done else self.failed | one,
            windows=self.windows + outcome.windows,
            detections=_summed(self.detections, outcome.detections),
            timings=self.timings + event.timings,
        )

    def to_bytes(self) -> bytes:
        """The table's value."""
        return json.dumps(
            {
                "completed": _pack(self.completed),
                "failed": _pack(self.failed),
                "windows": self.windows.model_dump(exclude_defaults=True),
                "detections": self.detections,
                "timings": self.timings.model_dump(exclude_defaults=True),
            },
            separators=(",", ":"),
        ).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Bucket:
        """Read :meth:`to_bytes` back."""
        data = json.loads(raw)
        return cls(
            completed=frozenset(_unpack(data["completed"])),
            failed=frozenset(_unpack(data["failed"])),
            windows=WindowCounts.model_validate(data["windows"]),
            detections=data["detections"],
            timings=Timings.model_validate(data["timings"]),
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """A job's sums over all its buckets: derived from the sets, never stored."""

    completed: int = 0
    failed: int = 0
    windows: WindowCounts = field(default_factory=WindowCounts)
    detections: dict[str, int] = field(default_factory=dict)
    timings: Timings = field(default_factory=Timings)

    @property
    def images(self) -> int:
        return self.completed + self.failed

    def plus(self, bucket: Bucket) -> Tally:
        """With one more bucket's images."""
        return Tally(
            completed=self.completed + len(bucket.completed),
            failed=self.failed + len(bucket.failed),
            windows=self.windows + bucket.windows,
            detections=_summed(self.detections, bucket.detections),
            timings=self.timings + bucket.timings,
        )

    @classmethod
    def over(cls, buckets: Iterable[Bucket]) -> Tally:
        """The sums over these buckets."""
        total = cls()
        for bucket in buckets:
            total = total.plus(bucket)
        return total


def running(job_id: str, record: JobRecord, tally: Tally, now: datetime) -> JobStatusChanged:
    """The snapshot of a job that has not ended."""
    return JobStatusChanged(
        job_id=job_id,
        status=JobStatus.RUNNING,
        images=ImageCounts(expected=record.size, completed=tally.completed, failed=tally.failed),
        windows=tally.windows,
        detections=dict(sorted(tally.detections.items())),
        updated=now,
    )


def decide(record: JobRecord, images: int) -> Next:
    """Whether a job with this many finished images is to be closed."""
    if record.cancelled or (record.size is not None and images >= record.size):
        return Next.CLOSE
    return Next.WAIT


def record_key(job_id: str) -> bytes:
    """Where a job's record lies in the table."""
    return job_id.encode()


def bucket_key(job_id: str, prefix: str) -> bytes:
    """Where the bucket of ids that begin so lies in the table; no job id has a slash."""
    return f"{job_id}/{prefix}".encode()


def place(image_id: str, bucket: Callable[[str], Bucket]) -> tuple[str, Bucket]:
    """The bucket that holds an image, or the first on its way that has room for it.

    The way leads by three digits more of its id at each step, and ends with all of them.

    Args:
        bucket: of ids that begin so.

    Returns:
        How its ids begin, and the bucket.
    """
    image = bytes.fromhex(image_id)
    prefix, found = "", Bucket()
    for end in range(_DIGITS, len(image_id) + _DIGITS, _DIGITS):
        prefix = image_id[:end]
        found = bucket(prefix)
        if image in found or not found.full:
            break
    return prefix, found


def held(job_id: str, value: Callable[[bytes], bytes | None], under: str = "") -> Iterator[str]:
    """How the ids of each bucket of a job begin that a table has a value of."""
    for number in range(BUCKETS):
        prefix = f"{under}{number:03x}"
        raw = value(bucket_key(job_id, prefix))
        if raw:
            yield prefix
            # under others there are none
            if len(raw) >= _FULL_BYTES:
                yield from held(job_id, value, prefix)


def _summed(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    if not b:
        return a
    return {name: a.get(name, 0) + b.get(name, 0) for name in a.keys() | b.keys()}


def _pack(ids: Iterable[bytes]) -> str:
    return base64.b64encode(b"".join(sorted(ids))).decode()


def _unpack(text: str) -> Iterator[bytes]:
    raw = base64.b64decode(text)
    return (raw[i : i + _ID] for i in range(0, len(raw), _ID))
