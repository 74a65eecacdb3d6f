"""What a job's end says: which images it has, their sums, the completed event. No store, no clock."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np
from pydantic import BaseModel, field_validator

from frond.contracts.events import JobCompleted
from frond.contracts.jobs import (
    Artifact,
    ImageCounts,
    ImageFailure,
    ImageOutcome,
    ImageStatus,
    JobOutcome,
    JobSpec,
    JobStatus,
    Timings,
    WindowCounts,
)
from frond.contracts.reasons import Reason

MAX_FAILURES: Final = 100
_ID: Final = np.dtype([("first", ">u8"), ("last", ">u8")])
"""An id's 16 bytes, ordered as bytes are."""


class Roster(BaseModel):
    """Which images a job is closed with: stored before anything is written."""

    cancelled: bool
    size: int | None
    images: str

    @classmethod
    def of(cls, images: Iterable[bytes], size: int | None, cancelled: bool) -> Roster:
        """The first ``size`` images, by id; all of them where no size is known."""
        packed = bytearray()
        for image in images:
            packed += image
        # ten million as objects of Python would take gigabytes
        chosen = np.unique(np.frombuffer(packed, _ID))[:size].tobytes()
        return cls(cancelled=cancelled, size=size, images=b64encode(chosen).decode())

    @field_validator("images")
    @classmethod
    def _are_ids(cls, value: str) -> str:
        if len(b64decode(value)) % 16:
            raise ValueError("not a row of ids of 16 bytes")
        return value

    def ids(self) -> Ids:
        """The images' ids, ascending."""
        return Ids(b64decode(self.images))


class Ids:
    """Ids of images, made of their bytes as they are asked for."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed) // 16

    def part(self, start: int, stop: int) -> list[str]:
        """Those from the one numbered ``start`` (from 0) up to the one before ``stop``."""
        end = min(stop, len(self))
        return [self._packed[n * 16 : n * 16 + 16].hex() for n in range(start, end)]

    def __iter__(self) -> Iterator[str]:
        return (i for n in range(len(self)) for i in self.part(n, n + 1))


@dataclass
class Sums:
    """What the completed event tells of a job's outcomes."""

    completed: int = 0
    failed: int = 0
    windows: WindowCounts = field(default_factory=WindowCounts)
    detections: dict[str, int] = field(default_factory=dict)
    failures: list[ImageFailure] = field(default_factory=list)

    @classmethod
    def over(cls, outcomes: Iterable[ImageOutcome]) -> Sums:
        """The sums over outcomes in their order; the first 100 failures are kept."""
        sums = cls()
        total, done, skipped, failed = 0, 0, 0, 0
        for o in outcomes:
            w = o.windows
            total, done = total + w.total, done + w.done
            skipped, failed = skipped + w.skipped, failed + w.failed
            for name, count in o.detections.items():
                sums.detections[name] = sums.detections.get(name, 0) + count
            if o.status is ImageStatus.COMPLETED:
                sums.completed += 1
                continue
            sums.failed += 1
            if len(sums.failures) < MAX_FAILURES:
                sums.failures.append(
                    ImageFailure(
                        name=o.name,
                        image=o.image,
                        reason=o.reason or Reason.INTERNAL,
                        detail=o.detail or "",
                    )
                )
        sums.windows = WindowCounts(total=total, done=done, skipped=skipped, failed=failed)
        sums.detections = dict(sorted(sums.detections.items()))
        return sums


def completed_event(
    job_id: str,
    roster: Roster,
    sums: Sums,
    artifacts: Sequence[Artifact],
    spec: JobSpec | None,
    timings: Timings,
    finished: datetime,
) -> JobCompleted:
    """The event that ends a job."""
    if roster.cancelled:
        status, outcome = JobStatus.DISMISSED, JobOutcome.DISMISSED
    elif sums.failed and not sums.completed:
        status, outcome = JobStatus.FAILED, JobOutcome.COMPLETED_WITH_ERRORS
    else:
        status = JobStatus.SUCCESSFUL
        outcome = JobOutcome.COMPLETED_WITH_ERRORS if sums.failed else JobOutcome.COMPLETED
    return JobCompleted(
        job_id=job_id,
        status=status,
        outcome=outcome,
        images=ImageCounts(expected=roster.size, completed=sums.completed, failed=sums.failed),
        windows=sums.windows,
        detections=sums.detections,
        failures=tuple(sums.failures),
        artifacts=tuple(artifacts),
        model=spec.model if spec else None,
        retry_of=spec.retry_of if spec else None,
        timings=timings,
        started=spec.created if spec else None,
        finished=finished,
    )
