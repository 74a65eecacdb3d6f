"""A job's images: add by PUT, by naming objects; list."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, FailFast, Field

from frond.contracts import keys
from frond.contracts.ids import image_id
from frond.contracts.jobs import ImageStatus, JobSpec
from frond.contracts.reasons import Reason
from frond.ingest import desk, intake, names, views
from frond.ingest.auth import require_pace, who_asks
from frond.ingest.context import ingest_of
from frond.ingest.cursors import read_cursor, write_cursor
from frond.ingest.intake import File
from frond.ingest.listing import named_object
from frond.ingest.problems import Refused
from frond.ingest.readmodel import queries
from frond.ingest.rooms import make_room
from frond.ingest.routes.answers import PROBLEMS, JobId, LongJsonRoute, S3Url
from frond.ingest.routes.bodies import Body
from frond.ingest.sinks import ObjectSink
from frond.ingest.tracing import traceparent
from frond.runtime import crash_point

router = APIRouter(tags=["images"], responses=PROBLEMS)  # type: ignore[arg-type] # keys are strings
described = APIRouter(
    tags=["images"],
    responses=PROBLEMS,  # type: ignore[arg-type] # keys are strings
    route_class=LongJsonRoute,
)


class Added(BaseModel):
    """An image that is in its job now."""

    job_id: str
    image_id: str
    name: str
    image: str
    size: int
    sha256: str | None = None
    created: bool = Field(description="false when the job had it already")


class NamedObject(Body):
    """An object in a bucket that rasters may be read from."""

    image: S3Url = Field(description="s3://bucket/key.tif")
    name: str | None = None


class NamedObjects(Body):
    """Objects to add to a job."""

    images: Annotated[list[NamedObject | S3Url], FailFast()] = Field(
        min_length=1, max_length=10_000
    )


class AddedList(BaseModel):
    """Images that are in their job now."""

    images: list[Added]


def added(spec: JobSpec, file: File, created: bool) -> Added:
    return Added(
        job_id=spec.job_id, image_id=image_id(spec.job_id, file.image), name=file.name,
        image=file.image, size=file.size, sha256=file.sha256, created=created,
    )  # fmt: skip


@router.put(
    "/jobs/{job_id}/images/{name:any_name}", response_model=Added, status_code=201,
    summary="Add one image: its bytes are the body", dependencies=[Depends(require_pace)],
    responses={200: {"model": Added, "description": "the job had it already"}},
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {
        "schema": {"type": "string", "format": "binary"}}}}},
)  # fmt: skip
async def put_image(request: Request, job_id: JobId, name: str) -> Response:
    ingest = ingest_of(request)
    name = names.display_name(name)
    spec = await desk.require_open(ingest, job_id)
    await ingest.require_broker()
    limit = ingest.settings.max_file_bytes
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > limit:
        raise Refused(Reason.TOO_LARGE, f"An image may have {limit} bytes here, not {told}.")
    room = await make_room(ingest, job_id, [name])
    key = keys.job_upload(job_id, name)
    sink = ObjectSink(ingest.store, key, limit)
    try:
        async for piece in request.stream():
            await sink.write(piece)
        sha = await sink.whole()
        if told.isdigit() and int(told) != sink.size:
            raise Refused(Reason.BAD_REQUEST, "The body is shorter than its Content-Length.")
        mine = File(name=name, image=ingest.store.uri(key), mark=f"sha256:{sha}", size=sink.size)
        by, began = intake.new_attempt(), time.monotonic()
        (file,) = await intake.claim(ingest, job_id, [mine], room, by)
        recorded = keys.job_input_record(job_id, image_id(job_id, file.image))
        known = file.by != by and await ingest.store.exists(recorded)
        if known or file.image != mine.image:
            # the bytes are there, under this name or as a form stored them
            await sink.drop()
        else:
            await sink.keep()
            crash_point("ingest.raster-stored")
            if time.monotonic() - began > intake.PROMPT_S:
                await intake.require_place(ingest, job_id, [file], room)
    except BaseException:
        await sink.drop()
        raise
    finally:
        room.leave()
    # sent again even when it is known: the first attempt may have died in between
    await intake.add(ingest, spec, [file], traceparent(request))
    body = added(spec, file, not known)
    return JSONResponse(body.model_dump(mode="json"), 200 if known else 201)


@described.post(
    "/jobs/{job_id}/images", response_model=AddedList, status_code=201,
    summary="Add images that are in the object store already",
)  # fmt: skip
async def add_objects(request: Request, job_id: JobId, body: NamedObjects) -> AddedList:
    ingest = ingest_of(request)
    spec = await desk.require_open(ingest, job_id)
    await ingest.require_broker()
    who = who_asks(request)
    wanted = [NamedObject(image=i) if isinstance(i, str) else i for i in body.images]

    async def look(item: NamedObject) -> File:
        return await named_object(ingest, item.image, who, item.name)

    files = await intake.in_parallel(wanted, look)
    unique = list({f.image: f for f in files}.values())

    async def missing(file: File) -> File | None:
        """What is to be claimed: nothing when the job has it. A dead request's claim once more."""
        had = await intake.claimed(ingest, job_id, _tag(file))
        if had is not None and await intake.recorded(ingest, job_id, had):
            return None
        return file.model_copy(update={"name": _tag(file), "mark": (had or file).mark})

    # an object is one image whatever it is called, so its address is what is claimed
    tagged = [f for f in await intake.in_parallel(unique, missing) if f is not None]
    if tagged:
        room = await make_room(ingest, job_id, [f.name for f in tagged])
        try:
            await intake.claim(ingest, job_id, tagged, room)
        finally:
            room.leave()
    await intake.add(ingest, spec, unique, traceparent(request))
    fresh = {f.image for f in tagged}
    return AddedList(images=[added(spec, f, f.image in fresh) for f in unique])


def _tag(file: File) -> str:
    return f"\n{file.image}"


@router.get(
    "/jobs/{job_id}/images", response_model=views.ImageList, summary="A job's images, by name"
)
async def list_images(
    request: Request,
    job_id: JobId,
    status: ImageStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> views.ImageList:
    ingest = ingest_of(request)
    await desk.row_of(ingest, job_id)
    found = read_cursor(cursor, str, str)
    after = (str(found[0]), str(found[1])) if found else None
    rows = await queries.images(
        ingest.db, job_id, status=status.value if status else None, after=after, limit=limit + 1
    )
    more = None
    links = [views.Link(rel="self", href=views.asked(request))]
    if len(rows) > limit:
        more = write_cursor(rows[limit - 1].name, rows[limit - 1].image_id)
        links.append(views.Link(rel="next", href=views.asked(request, cursor=more)))
    return views.ImageList(
        images=[views.image(request, r) for r in rows[:limit]], links=links, next_cursor=more
    )
