"""Events in, rows out: what a job looks like after an event. Pure; knows no SQL and no Kafka.

Topics are read side by side, so events of one job come in any order, and any of them may come
twice. Every rule here gives the same rows whatever the order: chunks are a set, the first to say
a job's size wins only until the aggregator's snapshot says it, a final event outranks the rest, and
the tenant that a job's settings name outranks those that events name.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import NamedTuple

from frond.contracts.events import (
    ChunkDetected,
    ImageEmpty,
    ImageFinished,
    ImageRejected,
    ImageUploaded,
    JobCancelled,
    JobCompleted,
    JobEvent,
    JobSealed,
    JobStatusChanged,
)
from frond.contracts.jobs import ImageStatus, JobSpec, JobStatus, ModelRef
from frond.ingest.names import MAX_NAME, clean_text
from frond.ingest.readmodel.rows import Batch, ImageKey, ImageRow, JobRow
from frond.ingest.readmodel.summary import summary

MAX_CHUNKS = 1 << 24
_MAX_TENANT = 256
CONTESTED = ""
"""The tenant of a job that two tenants were named for, until its settings tell: only admins see it."""


class ImageRecorded(ImageUploaded):
    """What ingest has recorded of an image, read from the store: it may never have been sent."""


def image_key(event: JobEvent) -> ImageKey | None:
    """The image that an event is about, if it is about one."""
    match event:
        case ImageFinished():
            return event.job_id, event.outcome.image_id
        case ImageUploaded() | ChunkDetected() | ImageEmpty() | ImageRejected():
            return event.job_id, event.image_id
        case _:
            return None


def apply(batch: Batch, event: JobEvent, at: int) -> None:
    """Change the batch's rows as the event says. ``at``: when it happened, ms since the epoch."""
    job = batch.job(event.job_id, at)
    if job.deleted:
        return
    match event:
        case ImageUploaded():
            _sized(job, event.job_size)
            _owned(job, event.tenant)
            row, before = _image(batch, event.job_id, event.image_id, event.image, at)
            row.uploaded |= not isinstance(event, ImageRecorded)
            row.name = _named(event.name, event.image)
            _tally(job, before, row)
        case JobSealed():
            _sized(job, event.job_size)
        case JobCancelled():
            job.cancelled = True
        case ChunkDetected() | ImageEmpty() | ImageRejected():
            _sized(job, event.job_size)
            row, before = _image(batch, event.job_id, event.image_id, event.image, at, event.name)
            _progress(row, event)
            _tally(job, before, row)
            if isinstance(event, ChunkDetected):
                _model(job, event.model)
            if isinstance(event, ImageRejected):
                _image_note(batch, job, before, row)
        case ImageFinished():
            _sized(job, event.job_size)
            _model(job, event.model)
            out = event.outcome
            row, before = _image(batch, event.job_id, out.image_id, out.image, at, out.name)
            _finish(row, event)
            _tally(job, before, row)
            _image_note(batch, job, before, row)
        case JobStatusChanged():
            if job.snapshot is None or _older(job.snapshot, event):
                job.snapshot = event.model_dump_json()
                job.expected = event.images.expected or job.expected
        case JobCompleted():
            _complete(batch, job, event, at)
        case _:
            pass


def pin(batch: Batch, job_id: str, spec: JobSpec | None, at: int) -> None:
    """What a job's stored settings say of it. ``at``: when it began, ms since the epoch."""
    job = batch.job(job_id, at)
    if spec is not None and not job.deleted:
        _model(job, spec.model)
        if spec.tenant is not None:
            job.tenant, job.pinned = _tenant(spec.tenant), True


def close(batch: Batch) -> None:
    """After a batch: derive each changed job's status and note its progress, once."""
    for job_id in batch.touched():
        job = batch.jobs[job_id]
        if job.deleted:
            continue
        if job.completion is not None:
            # a copy of an event that comes after the end is no news
            job.updated = job.finished or job.updated
            continue
        job.status = _status(job)
        if job.started is None and job.status == JobStatus.RUNNING.value:
            job.started = job.updated
        batch.note(job, "progress", json.dumps(summary(job)))


def _status(job: JobRow) -> str:
    if job.cancelled:
        return JobStatus.DISMISSED.value
    moving = job.running or job.completed or job.failed
    if moving or (job.snapshot and json.loads(job.snapshot)["status"] != JobStatus.ACCEPTED.value):
        return JobStatus.RUNNING.value
    return JobStatus.ACCEPTED.value


def _named(name: str | None, uri: str) -> str:
    # PostgreSQL's indexes take about 2,700 bytes
    return clean_text(name or uri.rsplit("/", 1)[-1])[:MAX_NAME]


def _sized(job: JobRow, size: int | None) -> None:
    if job.expected is None:
        job.expected = size


def _owned(job: JobRow, tenant: str | None) -> None:
    # whatever comes first: nobody's until one is named, and no tenant's once two are
    if tenant is None or job.pinned or job.tenant == CONTESTED:
        return
    named = _tenant(tenant)
    job.tenant = named if job.tenant in (None, named) else CONTESTED


def _tenant(name: str) -> str:
    return clean_text(name)[:_MAX_TENANT]


def _model(job: JobRow, model: ModelRef | None) -> None:
    if model is not None:
        job.model_name, job.model_digest = model.name, model.digest
        job.model_version = clean_text(model.version)


def _older(snapshot: str, event: JobStatusChanged) -> bool:
    return JobStatusChanged.model_validate_json(snapshot).updated <= event.updated


class _State(NamedTuple):
    """What of an image counts in its job's sums."""

    status: str | None = None
    planned: bool = False
    total: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    detections: str = "{}"


def _state(row: ImageRow) -> _State:
    return _State(
        row.status, row.w_total is not None, row.w_total or 0, row.w_done, row.w_skipped,
        row.w_failed, row.detections,
    )  # fmt: skip


def _image(
    batch: Batch, job_id: str, image_id: str, uri: str, at: int, name: str = ""
) -> tuple[ImageRow, _State]:
    row, new = batch.image(
        (job_id, image_id),
        lambda: ImageRow(job_id, image_id, _named(name, uri), clean_text(uri), at),
    )
    row.updated = max(row.updated, at)
    before = _State() if new else _state(row)
    return row, before


def _tally(job: JobRow, before: _State, row: ImageRow) -> None:
    """Add to the job's sums what this image's row gained."""
    after = _state(row)
    job.seen += before.status is None
    for status, delta in ((before.status, -1), (after.status, 1)):
        match status:
            case ImageStatus.RUNNING.value:
                job.running += delta
            case ImageStatus.COMPLETED.value:
                job.completed += delta
            case ImageStatus.FAILED.value:
                job.failed += delta
            case _:
                pass
    job.planned += after.planned - before.planned
    job.w_total += after.total - before.total
    job.w_done += after.done - before.done
    job.w_skipped += after.skipped - before.skipped
    job.w_failed += after.failed - before.failed
    if after.detections != before.detections:
        count = Counter(json.loads(job.detections))
        count.update(json.loads(after.detections))
        count.subtract(json.loads(before.detections))
        job.detections = json.dumps({k: v for k, v in sorted(count.items()) if v})


def _progress(row: ImageRow, event: ChunkDetected | ImageEmpty | ImageRejected) -> None:
    if row.final:
        return
    if isinstance(event, ImageRejected):
        row.status = ImageStatus.FAILED.value
        row.reason, row.detail = event.reason.value, clean_text(event.detail)
        return
    row.status = ImageStatus.RUNNING.value
    if row.plan_digest != event.plan_digest:
        # planned anew: what the old plan's chunks said no longer counts
        row.plan_digest, row.chunks_done = event.plan_digest, b""
        row.w_done = row.w_failed = 0
    row.w_total, row.w_skipped = event.windows_total, event.windows_skipped
    if isinstance(event, ChunkDetected):
        row.chunks = event.chunks
        bits = _with_bit(row.chunks_done, event.ordinal)
        if bits is not None:
            row.chunks_done = bits
            row.w_done += event.windows.done
            row.w_failed += event.windows.failed


def _with_bit(bits: bytes, ordinal: int) -> bytes | None:
    """The bitmap with this bit set; None if it was set already."""
    if ordinal >= MAX_CHUNKS:
        return None
    byte, mask = ordinal >> 3, 1 << (ordinal & 7)
    out = bytearray(bits.ljust(byte + 1, b"\0"))
    if out[byte] & mask:
        return None
    out[byte] |= mask
    return bytes(out)


def _finish(row: ImageRow, event: ImageFinished) -> None:
    out = event.outcome
    row.name = _named(out.name, out.image)
    row.status = out.status.value
    row.reason = out.reason.value if out.reason else None
    row.detail = clean_text(out.detail) if out.detail else None
    row.w_total, row.w_done = out.windows.total, out.windows.done
    row.w_skipped, row.w_failed = out.windows.skipped, out.windows.failed
    row.detections = json.dumps(dict(sorted(out.detections.items())))
    # chunks are of no more interest, and a late one must not bring them back
    row.plan_digest, row.chunks, row.chunks_done = None, 0, b""


def _image_note(batch: Batch, job: JobRow, before: _State, row: ImageRow) -> None:
    if before.status != row.status and row.final and job.completion is None:
        told = {
            "image_id": row.image_id, "name": row.name, "status": row.status,
            "reason": row.reason, "detail": row.detail,
            "windows": {
                "total": row.w_total or 0, "done": row.w_done, "skipped": row.w_skipped,
                "failed": row.w_failed,
            },
            "detections": json.loads(row.detections),
        }  # fmt: skip
        batch.note(job, "image", json.dumps(told))


def _complete(batch: Batch, job: JobRow, event: JobCompleted, at: int) -> None:
    if job.completion is not None:
        return
    job.completion = event.model_dump_json()
    job.status, job.outcome = event.status.value, event.outcome.value
    job.expected = event.images.expected if event.images.expected is not None else job.expected
    job.finished = int(event.finished.timestamp() * 1000) if event.finished else at
    if event.started:
        job.started = int(event.started.timestamp() * 1000)
    _model(job, event.model)
    batch.note(job, "completed", json.dumps(summary(job)))
