"""A job's row as the numbers that people see."""

from __future__ import annotations

import json
from typing import Any

from frond.contracts.jobs import JobStatus
from frond.ingest.readmodel.rows import JobRow


def summary(job: JobRow) -> dict[str, Any]:
    """Status, progress, images, windows and detections of a job, as JSON values.

    The completed event's figures where it, or what the stream told of it, is there. Until then the larger of our own sums and the
    aggregator's snapshot: both only grow, and either may be behind.
    """
    if job.completion is not None:
        figures = json.loads(job.completion)
        own = False
    else:
        figures = json.loads(job.snapshot) if job.snapshot else {}
        own = True
    images = figures.get("images", {})
    windows = figures.get("windows", {})
    return {
        "job_id": job.job_id,
        "status": job.status,
        "outcome": job.outcome,
        "progress": progress(job),
        "images": {
            "expected": job.expected,
            "received": max(job.seen, images.get("completed", 0) + images.get("failed", 0)),
            "running": job.running if own else 0,
            "completed": _figure(own, job.completed, images.get("completed", 0)),
            "failed": _figure(own, job.failed, images.get("failed", 0)),
        },
        "windows": {
            "total": _figure(own, job.w_total, windows.get("total", 0)),
            "done": _figure(own, job.w_done, windows.get("done", 0)),
            "skipped": _figure(own, job.w_skipped, windows.get("skipped", 0)),
            "failed": _figure(own, job.w_failed, windows.get("failed", 0)),
        },
        "detections": json.loads(job.detections) if own else figures.get("detections", {}),
    }


def progress(job: JobRow) -> float:
    """Percent, 0 to 100; 100 only when the job has ended.

    Each image counts alike; planned ones by the share of their windows that is settled.
    """
    if JobStatus(job.status).final:
        return 100.0
    expected = max(job.expected or 0, job.seen)
    if not expected:
        return 0.0
    settled = job.w_done + job.w_skipped + job.w_failed
    share = min(1.0, settled / job.w_total) if job.w_total else 0.0
    ended = job.completed + job.failed
    images = max(float(ended), job.planned * share)
    return min(99.0, round(100 * images / expected, 1))


def _figure(own: bool, ours: int, theirs: int) -> int:
    return max(ours, theirs) if own else theirs
