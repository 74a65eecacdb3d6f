"""Images that come straight into the store, in parts."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, FailFast, Field

from frond.contracts import keys
from frond.contracts.errors import ObjectMissing
from frond.contracts.reasons import Reason
from frond.ingest import desk, intake, names, presigned, views
from frond.ingest.auth import require_pace, who_asks
from frond.ingest.context import Ingest, ingest_of
from frond.ingest.intake import File
from frond.ingest.presigned import begin_parts, finish_parts
from frond.ingest.problems import Refused
from frond.ingest.rooms import Room, make_room
from frond.ingest.routes.answers import PROBLEMS, JobId, LongJsonRoute
from frond.ingest.routes.bodies import Body
from frond.ingest.routes.images import Added, added
from frond.ingest.tracing import traceparent
from frond.runtime import crash_point
from frond.store.client import Stat

router = APIRouter(
    tags=["images"],
    responses=PROBLEMS,  # type: ignore[arg-type] # keys are strings
    route_class=LongJsonRoute,
)

_MIB = 1 << 20
_MAX_PARTS = 10_000
# signing a URL costs more than asking for it
_PARTS_SIGNED = 1_000


class BeginMultipart(Body):
    """An image that its sender will put into the store directly, in parts."""

    size: int = Field(ge=1, description="bytes of the whole image")
    part_size: int = Field(default=64 * _MIB, ge=5 * _MIB, le=5 * 1024 * _MIB)


class MultipartBegun(BaseModel):
    """Where to PUT each part; the answers' ETags belong into ``complete``."""

    upload_id: str
    part_size: int = Field(
        description="bytes of each part but the last: what was asked for, or more where that would be "
        f"over {_PARTS_SIGNED} parts"
    )
    part_urls: list[str]
    complete: str
    expires_in: int = Field(description="seconds")


class PartDone(BaseModel):
    """A part that was put."""

    number: int = Field(ge=1, le=_MAX_PARTS)
    etag: str


class CompleteMultipart(Body):
    """All parts were put."""

    upload_id: str
    parts: Annotated[list[PartDone], FailFast()] = Field(min_length=1, max_length=_MAX_PARTS)


@router.post(
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
    room = await make_room(ingest, job_id, [name])
    try:
        # the name is taken first: nobody else's bytes under it can be replaced
        await intake.claim(ingest, job_id, [mine], room)
        # before the object is looked at: whoever completes it, too, deletes a misfit before it forgets
        # what was said, and records what fits
        said = await presigned.noted(ingest, job_id, key, body.upload_id)
        new = not await ingest.store.exists(key) and await _finish(
            ingest, job_id, mine, key, said, body, room
        )
        if said is None and not await intake.recorded(ingest, job_id, mine):
            raise presigned.no_such_upload()
        found = await _stat(ingest, key)
        if said is not None and found.size != said.size:
            held = await intake.claimed(ingest, job_id, name)
            if held is None or held.mark != mark:
                # another request did what follows: what lies there now was completed since
                raise presigned.no_such_upload()
            await ingest.store.delete(key)
            crash_point("ingest.misfit-deleted")
            await intake.release(ingest, job_id, mine, room)
            crash_point("ingest.misfit-released")
            await presigned.forget(ingest, job_id, body.upload_id)
            # what was said was counted when it began
            more = max(0, found.size - said.size)
            _charge(request, more)
            raise _other_size(found.size, said.size, ingest.settings.max_file_bytes)
        await intake.require_place(ingest, job_id, [mine], room)
    finally:
        room.leave()
    file = mine.model_copy(update={"size": found.size})
    await intake.add(ingest, spec, [file], traceparent(request))
    await presigned.forget(ingest, job_id, body.upload_id)
    crash_point("ingest.parts-forgotten")
    answer = added(spec, file, new)
    return JSONResponse(answer.model_dump(mode="json"), 201 if new else 200)


def _charge(request: Request, size: int) -> None:
    """Count bytes that go straight into the store: what does not come while its addresses live, never does."""
    ingest = ingest_of(request)
    ingest.rates.charge(who_asks(request).subject, size, ingest.settings.presign_seconds)


async def _stat(ingest: Ingest, key: str) -> Stat:
    try:
        return await ingest.store.stat(key)
    except ObjectMissing:
        # another request has just found that it does not fit
        raise presigned.no_such_upload() from None


def _other_size(size: int, said: int, limit: int) -> Refused:
    if size > limit:
        return Refused(Reason.TOO_LARGE, f"An image may have {limit} bytes here, not {size}.")
    return Refused(
        Reason.BAD_REQUEST,
        f"The parts have {size} bytes, and {said} were said when they began. Begin again.",
        status=422,
    )


async def _finish(
    ingest: Ingest,
    job_id: str,
    file: File,
    key: str,
    said: presigned.Coming | None,
    body: CompleteMultipart,
    room: Room,
) -> bool:
    """Make the object of its parts; False: another request has just done so."""
    parts = [(p.number, p.etag) for p in body.parts]
    try:
        if said is None:
            # nothing tells how large it may be; or another request has just completed it
            raise presigned.no_such_upload()
        await finish_parts(ingest.store, key, body.upload_id, parts)
        crash_point("ingest.parts-joined")
    except Refused as e:
        if e.reason is not Reason.OBJECT_MISSING:
            raise
        if await ingest.store.exists(key):
            return False
        await intake.release(ingest, job_id, file, room)
        # nor does anybody wait for them: who took them back may have died before it noted that
        await presigned.forget(ingest, job_id, body.upload_id)
        raise
    return True


@router.post(
    "/jobs/{job_id}/images/{name:any_name}/multipart", response_model=MultipartBegun, status_code=201,
    summary="Put one large image straight into the store, in parts",
    dependencies=[Depends(require_pace)],
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
    size = max(body.part_size, -(-body.size // _PARTS_SIGNED))
    key = keys.job_upload(job_id, name)
    expires = timedelta(seconds=settings.presign_seconds)
    upload_id, urls = await begin_parts(
        ingest.store, settings.s3_public_endpoint or settings.s3_endpoint, key,
        -(-body.size // size), expires, own_keys=settings.presign_with == "own",
    )  # fmt: skip
    crash_point("ingest.parts-begun")
    coming = presigned.Coming(key=key, upload_id=upload_id, size=body.size)
    await presigned.note(ingest, job_id, coming)
    crash_point("ingest.parts-noted")
    # these bytes do not come by here; what could not begin costs its sender none
    _charge(request, body.size)
    return MultipartBegun(
        upload_id=upload_id, part_size=size, part_urls=urls,
        complete=f"{views.base(request)}/jobs/{job_id}/images/{quote(name)}/multipart/complete",
        expires_in=settings.presign_seconds,
    )  # fmt: skip
