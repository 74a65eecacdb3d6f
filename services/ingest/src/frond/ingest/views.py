"""Answers: what a client sees of a job, its images and its results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from fastapi import Request
from pydantic import BaseModel, Field

from frond.contracts.events import JobCompleted
from frond.contracts.ids import parse_s3_uri
from frond.contracts.jobs import (
    ImageStatus,
    JobOutcome,
    JobStatus,
    ModelRef,
    Shadow,
    Timings,
    WindowCounts,
)
from frond.contracts.keys import job_prefix
from frond.ingest.context import ingest_of
from frond.ingest.readmodel.rows import JobRow
from frond.ingest.readmodel.summary import summary

_FIRST_MS: Final = -62_135_596_800_000
_LAST_MS: Final = 253_402_300_799_000
"""The first and the last second of datetime: of the years 1 and 9999, in UTC."""


class Link(BaseModel):
    """A link as in OGC API – Processes."""

    rel: str
    href: str
    type: str = "application/json"
    title: str | None = None


class Images(BaseModel):
    """expected is None until the job is sealed; at the end expected = completed + failed."""

    expected: int | None
    received: int
    running: int
    completed: int
    failed: int


class Failure(BaseModel):
    """An image that failed, and why."""

    name: str
    image: str
    reason: str | None
    detail: str | None


class Result(BaseModel):
    """One file among a job's results."""

    name: str
    url: str
    media_type: str
    size: int
    sha256: str
    uri: str


class Job(BaseModel):
    """Where a job stands (OGC API – Processes, statusInfo, with Frond's own figures)."""

    job_id: str
    type: str = "process"
    status: JobStatus
    outcome: JobOutcome | None = None
    message: str
    progress: float = Field(ge=0, le=100, description="percent; 100 only when the job has ended")
    images: Images
    windows: WindowCounts
    detections: dict[str, int] = Field(description="by class, of the images that are finished")
    model: ModelRef | None
    created: datetime
    updated: datetime
    started: datetime | None
    finished: datetime | None
    links: list[Link]


class JobDetail(Job):
    """A job with its failures, results and timings."""

    failures: list[Failure] = Field(description="at most 100; all are listed by the images link")
    artifacts: list[Result]
    timings: Timings | None = Field(
        description="seconds by stage, summed over all workers; null before the job has ended, and where "
        "none were measured"
    )
    shadow: Shadow | None = Field(
        default=None,
        description="what runs beside the model, on which share of the windows; its results are kept "
        "apart: frond models compare",
    )


class JobRef(BaseModel):
    """A job to those who may submit and not read: that it is theirs, and whether it goes on."""

    job_id: str
    type: str = "process"
    status: JobStatus
    created: datetime
    links: list[Link]


JobAnswer = JobDetail | JobRef
"""What whoever changes a job is told of it: all, or without the scope ``read`` a reference."""


class JobList(BaseModel):
    """A page of jobs, the newest first."""

    jobs: list[Job]
    links: list[Link]
    next_cursor: str | None = None


class Image(BaseModel):
    """One image of a job."""

    image_id: str
    name: str
    image: str
    status: ImageStatus
    reason: str | None
    detail: str | None
    windows: WindowCounts
    detections: dict[str, int]
    links: list[Link]


class ImageList(BaseModel):
    """A page of a job's images, by name."""

    images: list[Image]
    links: list[Link]
    next_cursor: str | None = None


class ResultList(BaseModel):
    """A job's results; empty until the job has ended."""

    job_id: str
    status: JobStatus
    results: list[Result]
    links: list[Link]


def base(request: Request) -> str:
    """How clients reach this service, without a slash at the end."""
    own = ingest_of(request).settings.public_url
    return (own or str(request.base_url)).rstrip("/")


def asked(request: Request, **changed: str) -> str:
    """The address that was asked for, as clients reach it, with these parameters changed."""
    url = request.url.include_query_params(**changed)
    if not ingest_of(request).settings.public_url:
        return str(url)
    query = f"?{url.query}" if url.query else ""
    return f"{base(request)}{url.path}{query}"


def moment(ms: int | None) -> datetime | None:
    """Milliseconds since the epoch as a time; the first or the last that there is for those beyond.

    A message's time is whatever its sender wrote, and one job's must not spoil the list of all.
    """
    if ms is None:
        return None
    return datetime.fromtimestamp(min(max(ms, _FIRST_MS), _LAST_MS) / 1000, UTC)


def job_links(request: Request, job_id: str) -> list[Link]:
    """Where a client goes on from a job."""
    here = f"{base(request)}/jobs/{quote(job_id)}"
    return [
        Link(rel="self", href=here),
        Link(rel="status", href=here, title="this document"),
        Link(rel="images", href=f"{here}/images"),
        Link(rel="events", href=f"{here}/events", type="text/event-stream"),
        Link(rel="results", href=f"{here}/results"),
        Link(rel="http://www.opengis.net/def/rel/ogc/1.0/results", href=f"{here}/results"),
    ]


def result_url(request: Request, job_id: str, name: str) -> str:
    return f"{base(request)}/jobs/{quote(job_id)}/results/{quote(name)}"


def job(request: Request, row: JobRow) -> Job:
    """A job's row as its answer."""
    return Job(**_job(request, row))


def _job(request: Request, row: JobRow) -> dict[str, Any]:
    figures = summary(row)
    model = None
    if row.model_name and row.model_digest:
        model = ModelRef(
            name=row.model_name, digest=row.model_digest, version=row.model_version or ""
        )
    return {
        **figures, "model": model, "message": message(figures),
        "created": moment(row.created), "updated": moment(row.updated),
        "started": moment(row.started), "finished": moment(row.finished),
        "links": job_links(request, row.job_id),
    }  # fmt: skip


def message(figures: dict[str, Any]) -> str:
    """One sentence on where the job stands."""
    images = figures["images"]
    expected = "?" if images["expected"] is None else images["expected"]
    match JobStatus(figures["status"]):
        case JobStatus.ACCEPTED:
            return f"Accepted; {images['received']} of {expected} images received."
        case JobStatus.RUNNING:
            done = images["completed"] + images["failed"]
            missing = (images["expected"] or 0) - max(done, images["received"])
            rest = f"; {missing} not received yet" if missing > 0 else ""
            return f"Running; {done} of {expected} images done{rest}."
        case JobStatus.DISMISSED:
            return "Cancelled."
        case JobStatus.FAILED:
            return f"Ended; not one of {expected} images completed{_beyond(images)}."
        case _:
            failed = images["failed"]
            rest = f", {failed} failed; see failures" if failed else ""
            return (
                f"Ended; {images['completed']} of {expected} images completed{rest}"
                f"{_beyond(images)}."
            )


def _beyond(images: dict[str, Any]) -> str:
    more = images["received"] - (images["expected"] or 0)
    if more <= 0:
        return ""
    return f"; {more} more than the job's size came and {'was' if more == 1 else 'were'} left out"


def detail(
    request: Request, row: JobRow, failed: Sequence[Any], shadow: Shadow | None = None
) -> JobDetail:
    """A job with failures (of the read model until the completed event lists them) and results."""
    completion = JobCompleted.model_validate_json(row.completion) if row.completion else None
    if completion is not None:
        failures = [Failure(**f.model_dump(mode="json")) for f in completion.failures]
    else:
        failures = [
            Failure(name=f.name, image=f.image, reason=f.reason, detail=f.detail) for f in failed
        ]
    return JobDetail(
        **_job(request, row),
        failures=failures,
        artifacts=results(request, row),
        timings=_measured(completion.timings) if completion else None,
        shadow=shadow,
    )


def _measured(timings: Timings) -> Timings | None:
    return timings if timings != Timings() else None


def results(request: Request, row: JobRow) -> list[Result]:
    """The artifacts of an ended job, with the addresses where they can be fetched."""
    if row.completion is None:
        return []
    out = []
    for artifact in json.loads(row.completion).get("artifacts", ()):
        name = artifact["name"]
        _, key = parse_s3_uri(artifact["uri"])
        inside = key.removeprefix(job_prefix(row.job_id))
        # results/x is fetched as x, images/{id}/x as images/{id}/x
        path = inside.removeprefix("results/") if inside != key else name
        out.append(Result(**artifact, url=result_url(request, row.job_id, path)))
    return out


def image(request: Request, row: Any) -> Image:
    """An image's row as its answer."""
    here = result_url(request, row.job_id, f"images/{row.image_id}/")
    return Image(
        image_id=row.image_id, name=row.name, image=row.image, status=row.status,
        reason=row.reason, detail=row.detail,
        windows=WindowCounts(
            total=row.w_total or 0, done=row.w_done, skipped=row.w_skipped, failed=row.w_failed
        ),
        detections=json.loads(row.detections),
        links=[Link(rel="results", href=here)],
    )  # fmt: skip
