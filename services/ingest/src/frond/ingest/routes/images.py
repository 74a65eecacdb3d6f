"""A job's images: add by PUT, by presigned multipart, by naming objects; list."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from frond.contracts import keys
from frond.contracts.ids import image_id
from frond.contracts.jobs import ImageStatus, JobSpec
from frond.contracts.reasons import Reason
from frond.ingest import desk, intake, names, presigned, views
from frond.ingest.auth import who_asks
from frond.ingest.context import Ingest, ingest_of
from frond.ingest.cursors import read_cursor, write_cursor
from frond.ingest.intake import File
from frond.ingest.listing import named_object
from frond.ingest.presigned import begin_parts, finish_parts
from frond.ingest.problems import Refused
from frond.ingest.readmodel import queries
from frond.ingest.rooms import Room, make_room
from frond.ingest.routes.answers import PROBLEMS, JobId, JsonRoute, S3Url
from frond.ingest.sinks import ObjectSink
from frond.ingest.tracing import traceparent
from frond.runtime import crash_point

router = APIRouter(tags=["images"], responses=PROBLEMS)  # type: ignore[arg-type] # keys are strings
described = APIRouter(
    tags=["images"],
    responses=PROBLEMS,  # type: ignore[arg-type] # keys are strings
    route_class=JsonRoute,
)

_MIB = 1 << 20
_MAX_PARTS = 10_000


class Added(BaseModel):
    """An image that is in its job now."""

    job_id: str
    image_id: str
    name: str
    image: str
    size: int
    sha256: str | None = None
    created: bool = Field(description="false when the job had it already")


class NamedObject(BaseModel):
    """An object in a bucket that rasters may be read from."""

    model_config = ConfigDict(extra="forbid")

    image: S3Url = Field(description="s3://bucket/key.tif")
    name: str | None = None


class NamedObjects(BaseModel):
    """Objects to add to a job."""

    model_config = ConfigDict(extra="forbid")

    images: list[NamedObject | S3Url] = Field(min_length=1, max_length=10_000)


class AddedList(BaseModel):
    """Images that are in their job now."""

    images: list[Added]


class BeginMultipart(BaseModel):
    """An image that its sender will put into the store directly, in parts."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(ge=1, description="bytes of the whole image")
    part_size: int = Field(default=64 * _MIB, ge=5 * _MIB, le=5 * 1024 * _MIB)


class MultipartBegun(BaseModel):
    """Where to PUT each part; the answers' ETags belong into ``complete``."""

    upload_id: str
    part_size: int
    part_urls: list[str]
    complete: str
    expires_in: int = Field(description="seconds")


class PartDone(BaseModel):
    """A part that was put."""

    number: int = Field(ge=1, le=_MAX_PARTS)
    etag: str


class CompleteMultipart(BaseModel):
    """All parts were put."""

    model_config = ConfigDict(extra="forbid")

    upload_id: str
    parts: list[PartDone] = Field(min_length=1, max_length=_MAX_PARTS)


def _added(spec: JobSpec, file: File, created: bool) -> Added:
    return Added(
        job_id=spec.job_id, image_id=image_id(spec.job_id, file.image), name=file.name,
        image=file.image, size=file.size, sha256=file.sha256, created=created,
    )  # fmt: skip


async def _admit(ingest: Ingest, job_id: str, name: str) -> Room:
    """A place for a new name in an open job. Raises Refused."""
    if await intake.claimed(ingest, job_id, name) is not None:
        return Room(ingest, job_id)
    try:
        return await make_room(ingest, job_id, [name])
    except Refused:
        # taken while it was asked, by an attempt before this one
        if await intake.claimed(ingest, job_id, name) is not None:
            return Room(ingest, job_id)
        raise


@router.put(
    "/jobs/{job_id}/images/{name:any_name}", response_model=Added, status_code=201,
    summary="Add one image: its bytes are the body",
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
    room = await _admit(ingest, job_id, name)
    key = keys.job_upload(job_id, name)
    sink = ObjectSink(ingest.store, key, limit)
    try:
        async for piece in request.stream():
            await sink.write(piece)
        sha = await sink.whole()
        if told.isdigit() and int(told) != sink.size:
            raise Refused(Reason.BAD_REQUEST, "The body is shorter than its Content-Length.")
        mine = File(name=name, image=ingest.store.uri(key), mark=f"sha256:{sha}", size=sink.size)
        (file,) = await intake.claim(ingest, job_id, [mine], room)
        recorded = keys.job_input_record(job_id, image_id(job_id, file.image))
        known = await ingest.store.exists(recorded)
        if known:
            await sink.drop()
        else:
            await sink.keep()
            crash_point("ingest.raster-stored")
            # a large object may have taken its time
            await intake.require_place(ingest, job_id, [file])
    except BaseException:
        await sink.drop()
        raise
    finally:
        room.leave()
    # sent again even when it is known: the first attempt may have died in between
    await intake.add(ingest, spec, [file], traceparent(request))
    body = _added(spec, file, not known)
    return JSONResponse(body.model_dump(mode="json"), 200 if known else 201)


@described.post(
    "/jobs/{job_id}/images/{name:any_name}/multipart/complete", response_model=Added, status_code=201,
    summary="All parts of an image are in the store",
)  # fmt: skip
async def complete_multipart(
    request: Request, job_id: JobId, name: str, body: CompleteMultipart
) -> Response:
    ingest = ingest_of(request)
    name = names.display_name(name)
    spec = await desk.require_open(ingest, job_id)
    await ingest.require_broker()
    key = keys.job_upload(job_id, name)
    mark = "upload:" + hashlib.sha256(body.upload_id.encode()).hexdigest()
    mine = File(name=name, image=ingest.store.uri(key), mark=mark, size=0)
    room = await _admit(ingest, job_id, name)
    try:
        # the name is taken first: nobody else's bytes under it can be replaced
        await intake.claim(ingest, job_id, [mine], room)
        new = not await ingest.store.exists(key) and await _finish(ingest, job_id, mine, key, body)
        found = await ingest.store.stat(key)
        said = await presigned.noted(ingest, job_id, key, body.upload_id)
        if said is not None and found.size != said.size:
            await ingest.store.delete(key)
            crash_point("ingest.misfit-deleted")
            await intake.release(ingest, job_id, mine)
            crash_point("ingest.misfit-released")
            await presigned.forget(ingest, job_id, body.upload_id)
            # what was said was counted when it began
            more = max(0, found.size - said.size)
            ingest.rates.charge(who_asks(request).subject, more)
            raise _other_size(found.size, said.size, ingest.settings.max_file_bytes)
        await intake.require_place(ingest, job_id, [mine])
    finally:
        room.leave()
    file = mine.model_copy(update={"size": found.size})
    await intake.add(ingest, spec, [file], traceparent(request))
    await presigned.forget(ingest, job_id, body.upload_id)
    crash_point("ingest.parts-forgotten")
    answer = _added(spec, file, new)
    return JSONResponse(answer.model_dump(mode="json"), 201 if new else 200)


def _other_size(size: int, said: int, limit: int) -> Refused:
    if size > limit:
        return Refused(Reason.TOO_LARGE, f"An image may have {limit} bytes here, not {size}.")
    return Refused(
        Reason.BAD_REQUEST,
        f"The parts have {size} bytes, and {said} were said when they began. Begin again.",
        status=422,
    )


async def _finish(
    ingest: Ingest, job_id: str, file: File, key: str, body: CompleteMultipart
) -> bool:
    """Make the object of its parts; False: another request has just done so."""
    parts = [(p.number, p.etag) for p in body.parts]
    try:
        if await presigned.noted(ingest, job_id, key, body.upload_id) is None:
            # nothing tells how large it may be; or another request has just completed it
            raise presigned.no_such_upload()
        await finish_parts(ingest.store, key, body.upload_id, parts)
        crash_point("ingest.parts-joined")
    except Refused as e:
        if e.reason is not Reason.OBJECT_MISSING:
            raise
        if await ingest.store.exists(key):
            return False
        await intake.release(ingest, job_id, file)
        # nor does anybody wait for them: who took them back may have died before it noted that
        await presigned.forget(ingest, job_id, body.upload_id)
        raise
    return True


@described.post(
    "/jobs/{job_id}/images/{name:any_name}/multipart", response_model=MultipartBegun, status_code=201,
    summary="Put one large image straight into the store, in parts",
)  # fmt: skip
async def begin_multipart(
    request: Request, job_id: JobId, name: str, body: BeginMultipart
) -> MultipartBegun:
    ingest = ingest_of(request)
    name = names.display_name(name)
    await desk.require_open(ingest, job_id)
    settings = ingest.settings
    if body.size > settings.max_file_bytes:
        limit = settings.max_file_bytes
        raise Refused(Reason.TOO_LARGE, f"An image may have {limit} bytes here, not {body.size}.")
    had = await intake.claimed(ingest, job_id, name)
    if had is not None and await intake.stored(ingest, had):
        raise Refused(
            Reason.CONFLICT, f"{name!r} is in job {job_id!r} already. Choose another name."
        )
    (await make_room(ingest, job_id, [name])).leave()
    # these bytes do not come by here
    ingest.rates.charge(who_asks(request).subject, body.size)
    size = max(body.part_size, -(-body.size // _MAX_PARTS))
    key = keys.job_upload(job_id, name)
    expires = timedelta(seconds=settings.presign_seconds)
    upload_id, urls = await begin_parts(
        ingest.store, ingest.signer, key, -(-body.size // size), expires
    )
    crash_point("ingest.parts-begun")
    coming = presigned.Coming(key=key, upload_id=upload_id, size=body.size)
    await presigned.note(ingest, job_id, coming)
    crash_point("ingest.parts-noted")
    return MultipartBegun(
        upload_id=upload_id, part_size=size, part_urls=urls,
        complete=f"{views.base(request)}/jobs/{job_id}/images/{quote(name)}/multipart/complete",
        expires_in=settings.presign_seconds,
    )  # fmt: skip


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
    had = await intake.in_parallel(unique, lambda f: intake.claimed(ingest, job_id, _tag(f)))
    new = [f for f, h in zip(unique, had, strict=True) if h is None]
    if new:
        # an object is one image whatever it is called, so its address is what is claimed
        tagged = [f.model_copy(update={"name": _tag(f)}) for f in new]
        room = await make_room(ingest, job_id, [f.name for f in tagged])
        try:
            await intake.claim(ingest, job_id, tagged, room)
        finally:
            room.leave()
    await intake.add(ingest, spec, unique, traceparent(request))
    fresh = {f.image for f in new}
    return AddedList(images=[_added(spec, f, f.image in fresh) for f in unique])


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
    links = [views.Link(rel="self", href=str(request.url))]
    if len(rows) > limit:
        more = write_cursor(rows[limit - 1].name, rows[limit - 1].image_id)
        href = str(request.url.include_query_params(cursor=more))
        links.append(views.Link(rel="next", href=href))
    return views.ImageList(
        images=[views.image(request, r) for r in rows[:limit]], links=links, next_cursor=more
    )
