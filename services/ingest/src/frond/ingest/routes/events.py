"""Live progress as Server-Sent Events, resumable by ``Last-Event-ID``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Annotated, Final

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from frond.ingest import desk
from frond.ingest.auth import still_good, who_asks
from frond.ingest.context import Ingest, ingest_of
from frond.ingest.readmodel import queries
from frond.ingest.routes.answers import PROBLEMS, JobId

router = APIRouter(tags=["jobs"], responses=PROBLEMS)  # type: ignore[arg-type] # keys are strings

_LOOK_EVERY_S = 2.0  # another process may have changed the rows
_RETRY_MS = 2000
_PAGE: Final = 500
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


@router.get(
    "/jobs/{job_id}/events", summary="Follow a job live",
    response_class=StreamingResponse,
    openapi_extra={"responses": {"200": {
        "description": "events: progress (the job's figures), image (one image has ended), "
        "completed (the job has ended; the stream ends)",
        "content": {"text/event-stream": {}}},
        "204": {"description": "the job has ended, and Last-Event-ID was its last event"}}},
)  # fmt: skip
async def follow(
    request: Request,
    job_id: JobId,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    ingest = ingest_of(request)
    row = await desk.row_of(ingest, job_id)
    after = int(last_event_id) if last_event_id and _NUMBER.fullmatch(last_event_id) else 0
    if after > row.last_seq:
        after = 0  # numbered by a database that is no more
    if after and after == row.last_seq and row.completion is not None:
        return Response(status_code=204)  # tells an EventSource not to come back
    return _Stream(
        _stream(request, ingest, job_id, after), ingest.streams.one(who_asks(request).subject)
    )


class _Stream(StreamingResponse):
    """Holds its place among its key's streams from before its first byte until it has ended."""

    media_type = "text/event-stream"

    def __init__(self, text: AsyncIterator[str], place: AbstractContextManager[None]) -> None:
        super().__init__(text, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)


def event_text(seq: int, kind: str, data: str) -> str:
    """One event in the format of the HTML standard; ``data`` is JSON on one line."""
    return f"id: {seq}\nevent: {kind}\ndata: {data}\n\n"


async def _stream(request: Request, ingest: Ingest, job_id: str, after: int) -> AsyncIterator[str]:
    yield f"retry: {_RETRY_MS}\n\n"
    loop = asyncio.get_running_loop()
    spoken = loop.time()
    with ingest.hub.watching(job_id) as bell:
        while not ingest.hub.closing:
            # before each page: a stream may have years of them to catch up with
            if not await still_good(request):
                return
            bell.clear()
            page = await queries.events(ingest.db, job_id, after, _PAGE)
            for seq, kind, data in page:
                after = seq
                spoken = loop.time()
                yield event_text(seq, kind, data)
                if kind == "completed":
                    return
            if len(page) == _PAGE:
                continue
            row = await queries.job(ingest.db, job_id)
            if row is None or (row.completion is not None and after >= row.last_seq):
                return
            if after < row.last_seq and bell.is_set():
                continue
            if loop.time() - spoken >= ingest.settings.heartbeat_seconds:
                spoken = loop.time()
                yield ": still here\n\n"
            try:
                wait = min(_LOOK_EVERY_S, ingest.settings.heartbeat_seconds)
                await asyncio.wait_for(bell.wait(), wait)
            except TimeoutError:
                continue
