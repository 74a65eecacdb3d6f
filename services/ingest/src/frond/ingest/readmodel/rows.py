"""Rows of the read model as plain values, and a batch of them that is being changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from frond.contracts.jobs import ImageStatus, JobStatus


@dataclass(slots=True)
class JobRow:
    """One row of ``jobs``; see the table for the columns."""

    job_id: str
    created: int
    updated: int
    status: str = JobStatus.ACCEPTED.value
    outcome: str | None = None
    cancelled: bool = False
    deleted: bool = False
    started: int | None = None
    finished: int | None = None
    model_name: str | None = None
    model_digest: str | None = None
    model_version: str | None = None
    expected: int | None = None
    seen: int = 0
    planned: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    w_total: int = 0
    w_done: int = 0
    w_skipped: int = 0
    w_failed: int = 0
    detections: str = "{}"
    snapshot: str | None = None
    completion: str | None = None
    last_seq: int = 0
    tenant: str | None = None
    pinned: bool = False


@dataclass(slots=True)
class ImageRow:
    """One row of ``images``; see the table for the columns."""

    job_id: str
    image_id: str
    name: str
    image: str
    updated: int
    uploaded: bool = False
    status: str = ImageStatus.UPLOADED.value
    reason: str | None = None
    detail: str | None = None
    plan_digest: str | None = None
    chunks: int = 0
    chunks_done: bytes = b""
    w_total: int | None = None
    w_done: int = 0
    w_skipped: int = 0
    w_failed: int = 0
    detections: str = "{}"

    @property
    def final(self) -> bool:
        return self.status in (ImageStatus.COMPLETED.value, ImageStatus.FAILED.value)


class Note(NamedTuple):
    """One event of a job's stream, to be stored. ``progress`` replaces the ones before it."""

    job_id: str
    seq: int
    type: str
    data: str


ImageKey = tuple[str, str]


@dataclass(slots=True)
class Batch:
    """Rows touched by a batch of events, loaded beforehand; new ones are made on demand."""

    jobs: dict[str, JobRow] = field(default_factory=dict)
    images: dict[ImageKey, ImageRow] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    changed_jobs: set[str] = field(default_factory=set)
    changed_images: set[ImageKey] = field(default_factory=set)

    def job(self, job_id: str, at: int) -> JobRow:
        """The job's row, marked as changed."""
        self.changed_jobs.add(job_id)
        row = self.jobs.get(job_id)
        if row is None:
            row = self.jobs[job_id] = JobRow(job_id, at, at)
        row.created = min(row.created, at)
        row.updated = max(row.updated, at)
        return row

    def image(self, key: ImageKey, make: Callable[[], ImageRow]) -> tuple[ImageRow, bool]:
        """The image's row, marked as changed, and whether it is new."""
        self.changed_images.add(key)
        row = self.images.get(key)
        if row is not None:
            return row, False
        row = self.images[key] = make()
        return row, True

    def note(self, job: JobRow, kind: str, data: str) -> None:
        """Append to the job's event stream."""
        job.last_seq += 1
        self.notes.append(Note(job.job_id, job.last_seq, kind, data))

    def touched(self) -> Iterable[str]:
        """Ids of changed jobs, sorted."""
        return sorted(self.changed_jobs)
