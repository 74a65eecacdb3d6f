"""How requests that make something are answered, once each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final

from fastapi import Header, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BeforeValidator, WithJsonSchema
from starlette.convertors import PathConvertor, register_url_convertor

from frond.auth import Scope
from frond.contracts.ids import JOB_ID_PATTERN, canonical_json, digest
from frond.contracts.jobs import JobSpec
from frond.contracts.reasons import Reason
from frond.ingest import desk, views
from frond.ingest.auth import who_asks
from frond.ingest.context import Ingest, ingest_of
from frond.ingest.idempotency import Once, Stored
from frond.ingest.problems import Refused
from frond.ingest.readmodel import queries
from frond.ingest.readmodel.rows import JobRow

IdempotencyKey = Header(
    alias="Idempotency-Key",
    description="the same key with the same request gets the first answer again",
    json_schema_extra={"minLength": 1, "maxLength": 255},
)
# told in the document and checked by check_job_id, whose sentence says more than a pattern
JobId = Annotated[str, WithJsonSchema({"type": "string", "pattern": JOB_ID_PATTERN})]


def _rfc3339(value: object) -> object:
    if isinstance(value, str) and "-" not in value[1:]:
        raise ValueError("write a date and a time, such as 2026-03-01T12:00:00Z")
    return value


Moment = Annotated[datetime, BeforeValidator(_rfc3339)]
S3Url = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^s3://[^/]+/.+"})]


class _AnyName(PathConvertor):
    """The rest of a path, whatever is in it: starlette's own stops at a newline."""

    regex = "(?s:.*)"


register_url_convertor("any_name", _AnyName())
_DRAINED: Final = 64 << 20
_KEPT: Final = {"location", "idempotency-replayed"}
PROBLEM: Final = {
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail", "reason"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "reason": {"type": "string"},
                    "instance": {"type": "string"},
                    "trace_id": {"type": "string"},
                },
            }
        }
    },
    "description": "What is wrong, as RFC 9457 problem details",
}
PROBLEMS: Final = {"4XX": PROBLEM, "5XX": PROBLEM}


class JsonRoute(APIRoute):
    """A route whose body is read whole, and taken apart while nobody else is answered: 64 KiB."""

    most: ClassVar[int] = 64 << 10

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def limited(request: Request) -> Response:
            body, stream = bytearray(), request.stream()
            async for piece in stream:
                body += piece
                if len(body) > self.most:
                    await drain(stream)
                    raise Refused(
                        Reason.TOO_LARGE, f"The body may have {self.most} bytes; this is JSON."
                    )
            request._body = bytes(body)
            return await handler(request)

        return limited


class LongJsonRoute(JsonRoute):
    """One whose body may be a list of thousands: 8 MiB."""

    most = 8 << 20


async def drain(body: AsyncIterator[bytes]) -> None:
    """Read what a client still sends, up to 64 MiB: many read no answer before they are done."""
    left = _DRAINED
    async for piece in body:
        left -= len(piece)
        if left < 0:
            return


def replay(request: Request, stored: Stored) -> Response:
    """The first answer, again, as far as this caller may read it."""
    first = Response(
        stored.body, stored.status, media_type="application/json",
        headers={"Location": stored.location, "Idempotency-Replayed": "true"},
    )  # fmt: skip
    return in_scope(request, first)


def in_scope(request: Request, answer: Response) -> Response:
    """An answer that holds a JobDetail; a JobRef of it for whoever has not the scope ``read``."""
    if who_asks(request).may(Scope.READ):
        return answer
    told = views.JobRef.model_validate_json(bytes(answer.body)).model_dump(mode="json")
    kept = {k: v for k, v in answer.headers.items() if k in _KEPT}
    return JSONResponse(told, answer.status_code, headers=kept)


async def job_detail(request: Request, row: JobRow) -> views.JobDetail:
    """A job with its failures and its shadow."""
    ingest = ingest_of(request)
    failed = await queries.failures(ingest.db, row.job_id) if row.failed else ()
    return views.detail(request, row, failed, await desk.shadow_of(ingest, row.job_id))


async def job_answer(request: Request, job_id: str, status: int) -> JSONResponse:
    """All of a job just made, with its address; see :func:`in_scope`."""
    ingest = ingest_of(request)
    row = await desk.row_of(ingest, job_id)
    body = (await job_detail(request, row)).model_dump(mode="json")
    where = f"{views.base(request)}/jobs/{job_id}"
    return JSONResponse(body, status, headers={"Location": where})


async def make_once(
    request: Request,
    scope: str,
    key: str | None,
    wanted: object,
    status: int,
    work: Callable[[Ingest], Awaitable[JobSpec]],
) -> Response:
    """Do the work of a JSON request once for each key, and answer with the job it made.

    ``wanted``: the request's content, as JSON values.
    """
    ingest = ingest_of(request)
    once = Once(ingest.db, who_asks(request).own(scope), key)
    fingerprint = digest(scope, canonical_json(wanted).decode())
    async with once.turn() as stored:
        if stored is not None:
            once.same(stored, fingerprint)
            return replay(request, stored)
        await ingest.require_broker()
        spec = await work(ingest)
        answer = await job_answer(request, spec.job_id, status)
        await once.keep(
            fingerprint, status, answer.headers["location"], bytes(answer.body).decode()
        )
        return in_scope(request, answer)
