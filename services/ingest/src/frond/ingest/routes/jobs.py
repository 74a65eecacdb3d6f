"""Jobs: make, look at, list, seal, cancel, delete."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field, field_validator

from frond.contracts import keys
from frond.contracts.errors import ObjectMissing
from frond.contracts.events import MOST_IMAGES, JobCompleted
from frond.contracts.jobs import JobSpec, JobStatus, ShadowWish, Thresholds
from frond.ingest import desk, listing, names, places, sealing, tenancy, views
from frond.ingest.auth import who_asks
from frond.ingest.context import Ingest, ingest_of
from frond.ingest.cursors import read_cursor, write_cursor
from frond.ingest.readmodel import queries
from frond.ingest.readmodel.changes import apply_all
from frond.ingest.readmodel.rows import JobRow
from frond.ingest.routes.answers import (
    PROBLEMS,
    IdempotencyKey,
    JobId,
    JsonRoute,
    Moment,
    S3Url,
    in_scope,
    job_answer,
    job_detail,
    make_once,
)
from frond.ingest.routes.bodies import Body
from frond.ingest.tracing import traceparent
from frond.ingest.wishes import Wish

router = APIRouter(
    tags=["jobs"],
    responses=PROBLEMS,  # type: ignore[arg-type] # keys are strings
    route_class=JsonRoute,
)


class _Body(Body):
    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: object) -> object:
        # pydantic would take true for 1
        if isinstance(value, bool):
            raise ValueError("true and false are no value of this field")
        return value


_Shadow = Annotated[
    ShadowWish | Literal["none"] | None,
    Field(
        description="a version that runs beside the model on a share of the windows, its results "
        "kept apart; none: no shadow; null: the model's standing one, for jobs of production"
    ),
]


class NewJob(_Body):
    """A job to which images are added one by one, until it is sealed."""

    job_id: JobId | None = None
    model: str | None = Field(default=None, description="name, name@alias or name@digest")
    thresholds: Thresholds = Thresholds()
    score: float | None = Field(default=None, ge=0, le=1, description="thresholds.score, for short")
    webhook_url: str | None = None
    email: str | None = None
    shadow: _Shadow = None
    size: int | None = Field(
        default=None,
        ge=1,
        le=MOST_IMAGES,
        description="how many images it will have; then it needs no sealing",
    )


class StartJob(_Body):
    """A job out of an object, or of all rasters under a prefix."""

    s3_url: S3Url = Field(description="s3://bucket/key.tif or s3://bucket/prefix/")
    email: str | None = None
    webhook_url: str | None = None
    model: str | None = None
    shadow: _Shadow = None
    job_id: JobId | None = None
    thresholds: Thresholds = Thresholds()
    score: float | None = Field(default=None, ge=0, le=1)


class Seal(_Body):
    """The job has all of its images."""

    size: int | None = Field(
        default=None, ge=0, le=MOST_IMAGES, alias="job_size",
        description="how many; by default as many as were added",
    )  # fmt: skip
    model_config = ConfigDict(populate_by_name=True)


def _content(body: NewJob | StartJob) -> dict[str, Any]:
    # a request from before there were shadows is still the same request
    return body.model_dump(mode="json", exclude={"shadow"} if body.shadow is None else None)


def _wish(body: NewJob | StartJob) -> Wish:
    thresholds = body.thresholds
    if body.score is not None:
        thresholds = thresholds.model_copy(update={"score": body.score})
    return Wish(
        job_id=body.job_id, model=body.model, thresholds=thresholds,
        webhook_url=body.webhook_url, email=body.email, shadow=body.shadow,
    )  # fmt: skip


@router.post("/jobs", status_code=201, response_model=views.JobAnswer, summary="Create a job")
async def create(
    request: Request, body: NewJob, key: Annotated[str | None, IdempotencyKey] = None
) -> Response:
    who = who_asks(request)

    async def work(ingest: Ingest) -> JobSpec:
        desk.require_size(ingest, body.size)
        job_id = body.job_id or names.new_job_id(key, who.own("jobs"))
        async with tenancy.room_for_job(ingest, job_id, who):
            spec = await desk.pin(ingest, job_id, _wish(body), who)
            await desk.open_for_work(ingest, spec, body.size)
        if body.size is not None:
            await desk.seal(ingest, job_id, body.size, traceparent(request), declared=True)
        return spec

    return await make_once(request, "jobs", key, _content(body), 201, work)


@router.post(
    "/start-job", status_code=202, response_model=views.JobAnswer,
    summary="Start a job with S3 objects",
)  # fmt: skip
async def start_job(
    request: Request, body: StartJob, key: Annotated[str | None, IdempotencyKey] = None
) -> Response:
    who = who_asks(request)

    async def work(ingest: Ingest) -> JobSpec:
        job_id = body.job_id or names.new_job_id(key, who.own("start-job"))
        trace = traceparent(request)
        async with tenancy.room_for_job(ingest, job_id, who):
            spec = await listing.start(ingest, body.s3_url, job_id, _wish(body), who, trace)
        with contextlib.suppress(ObjectMissing):
            await ingest.store.stat(places.listing(job_id))
            task = asyncio.create_task(listing.expand_in_background(ingest, job_id, trace))
            ingest.spawn(task)
            # a short listing is answered with its size
            await asyncio.wait({task}, timeout=5)
        return spec

    return await make_once(request, "start-job", key, _content(body), 202, work)


@router.get("/jobs", response_model=views.JobList, summary="List jobs, the newest first")
async def list_jobs(
    request: Request,
    status: Annotated[list[JobStatus] | None, Query()] = None,
    since: Moment | None = None,
    until: Moment | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> views.JobList:
    found = read_cursor(cursor, int, str)
    after = (int(found[0]), str(found[1])) if found else None
    who = who_asks(request)
    rows = await queries.jobs(
        ingest_of(request).db, status=[s.value for s in status or ()], since=_ms(since),
        until=_ms(until), after=after, limit=limit + 1,
        tenant=None if who.admin else who.tenant,
    )  # fmt: skip
    more = (
        write_cursor(rows[limit - 1].created, rows[limit - 1].job_id) if len(rows) > limit else None
    )
    links = [views.Link(rel="self", href=views.asked(request))]
    if more:
        links.append(views.Link(rel="next", href=views.asked(request, cursor=more)))
    return views.JobList(
        jobs=[views.job(request, r) for r in rows[:limit]], links=links, next_cursor=more
    )


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _ms(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # exact, and defined for every year that can be written; Python's timestamp() is not
    return (moment - _EPOCH) // timedelta(milliseconds=1)


@router.get("/status/{job_id}", response_model=views.JobDetail, summary="Where a job stands")
@router.get("/jobs/{job_id}", response_model=views.JobDetail, summary="Where a job stands")
async def show(request: Request, job_id: JobId) -> views.JobDetail:
    ingest = ingest_of(request)
    row = await caught_up(ingest, await desk.row_of(ingest, job_id))
    return await job_detail(request, row)


async def caught_up(ingest: Ingest, row: JobRow) -> JobRow:
    """The row with its completed event, also where Kafka keeps that event no more."""
    if row.completion is not None or row.snapshot is None:
        return row
    status = JobStatus(queries.snapshot_status(row))
    if not status.final:
        return row
    try:
        raw = await ingest.store.get(keys.job_completed(row.job_id))
    except ObjectMissing:
        return row
    event = JobCompleted.model_validate_json(raw)
    async with ingest.db.write() as c:
        await apply_all(ingest.db, c, [(event, row.updated)])
    return await queries.job(ingest.db, row.job_id) or row


@router.post(
    "/jobs/{job_id}/seal", response_model=views.JobAnswer,
    summary="No more images will be added",
)  # fmt: skip
async def seal(request: Request, job_id: JobId, body: Seal | None = None) -> Response:
    ingest = ingest_of(request)
    spec = await desk.spec_of(ingest, job_id)
    await ingest.require_broker()
    size = await sealing.seal(ingest, job_id, body.size if body else None, traceparent(request))
    await desk.show(ingest, spec, size)
    return in_scope(request, await job_answer(request, job_id, 200))


@router.post("/jobs/{job_id}/cancel", response_model=views.JobAnswer, summary="Stop a job")
async def cancel(request: Request, job_id: JobId) -> Response:
    ingest = ingest_of(request)
    row = await desk.cancel(ingest, job_id, traceparent(request))
    detail = await job_detail(request, row)
    return in_scope(request, JSONResponse(detail.model_dump(mode="json")))


@router.delete(
    "/jobs/{job_id}", status_code=204, summary="Stop a job if it runs, and delete all of it"
)
async def delete(request: Request, job_id: JobId) -> Response:
    await desk.delete(ingest_of(request), job_id, traceparent(request))
    return Response(status_code=204)
