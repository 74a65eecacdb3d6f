"""The aggregator's metrics, one list."""

from __future__ import annotations

from typing import Final, Literal, get_args

from prometheus_client import Counter, Gauge, Histogram

IMAGES: Final = Counter("frond_images_finished_total", "Images finished, by status", ["status"])
JOBS: Final = Counter("frond_jobs_completed_total", "Jobs ended, by outcome", ["outcome"])
MERGING: Final = Histogram(
    "frond_merge_seconds", "From reading an image's chunks up to its outcome being stored",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)  # fmt: skip
MASKERS_LOST: Final = Counter(
    "frond_mask_processes_lost_total", "Processes that were making masks and were lost", ["why"]
)
CLOSING: Final = Histogram(
    "frond_job_close_seconds", "Writing a job's results",
    buckets=(0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800),
)  # fmt: skip
LATE: Final = Counter(
    "frond_images_ignored_total", "Images beyond a job's size or after its end, ignored"
)
STRANGERS: Final = Counter(
    "frond_chunks_ignored_total",
    "Events of an image whose stored plan is another one, or is not there",
)
OPEN_JOBS: Final = Gauge("frond_jobs_open", "Jobs that have not ended, at the last look")
Redriven = Literal["uploaded", "refused", "tiled", "imaged", "given up", "completed", "job"]
REDRIVEN: Final = Counter(
    "frond_redriven_total", "Events and effects repeated for jobs that stood still", ["what"]
)
# an alert on the increase of a series sees its first event only if it was there before
for _what in get_args(Redriven):
    REDRIVEN.labels(_what)


def redriven(what: Redriven, number: int = 1) -> None:
    """Count what was repeated for a job that stood still."""
    REDRIVEN.labels(what).inc(number)
