"""Every error as RFC 9457 problem details, ``application/problem+json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnection
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

from frond.auth import Throttled
from frond.contracts.errors import (
    BrokerUnavailable,
    JobRejected,
    ObjectMissing,
    StoreFull,
    StoreUnavailable,
    UserError,
)
from frond.contracts.reasons import Reason
from frond.ingest.tracing import trace_id
from frond.runtime import get_logger
from frond.runtime.problems import STATUS, Problem, fields_of, sentence_of

FULL_RETRY_AFTER_S: Final = 30
_log = get_logger(__name__)

_STATUS: Final = {
    **STATUS,
    Reason.BUCKET_NOT_ALLOWED: 403,
    Reason.CONFLICT: 409,
    Reason.JOB_CLOSED: 409,
}
_REASON: Final[dict[int, Reason]] = {
    401: Reason.UNAUTHORIZED,
    403: Reason.FORBIDDEN,
    404: Reason.NOT_FOUND,
    409: Reason.CONFLICT,
    413: Reason.TOO_LARGE,
    503: Reason.UNAVAILABLE,
}


class Refused(JobRejected):
    """A request turned down with a status of its own, where the reason's usual one misleads."""

    def __init__(
        self,
        reason: Reason,
        detail: str,
        status: int | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(reason, detail)
        self.status = status
        self.headers = dict(headers or {})
        self.more = dict(more or {})


def not_found(job_id: str) -> Refused:
    """The answer for a job that nobody knows."""
    return Refused(Reason.NOT_FOUND, f"There is no job {job_id!r}.")


def status_of(reason: Reason) -> int:
    """The HTTP status that tells this reason; 422 for whatever is wrong with what was sent."""
    return _STATUS.get(reason, 422)


def problem(
    request: Request,
    status: int,
    reason: Reason,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> JSONResponse:
    """One problem document: type, title, status, detail, instance, and our reason and trace id."""
    return Problem(
        request.url.path, status, reason, detail, headers=headers,
        more={"trace_id": trace_id(request.scope), **(more or {})},
    )  # fmt: skip


def _allowed(request: Request) -> dict[str, str]:
    """Every method that the document has for the path; starlette names those of one route."""
    for template, operations in request.app.openapi()["paths"].items():
        if compile_path(template)[0].match(request.url.path):
            return {"Allow": ", ".join(sorted(m.upper() for m in operations))}
    return {}


def answer_of(request: Request, e: Exception) -> JSONResponse:
    """The answer to what somebody can mend; 503 for an outage of something that we need."""
    if not isinstance(e, UserError):
        return _away(request, e)
    status = e.status if isinstance(e, Refused) and e.status else status_of(e.reason)
    headers = e.headers if isinstance(e, Refused) else {}
    if isinstance(e, Throttled):
        headers = {"Retry-After": str(e.retry_after), **headers}
    more = e.more if isinstance(e, Refused) else {}
    return problem(request, status, e.reason, e.detail, headers=headers, more=more)


def _away(request: Request, e: Exception) -> JSONResponse:
    if isinstance(e, StoreFull):
        _log.error("the object store is full", error=repr(e), trace_id=trace_id(request.scope))
        return problem(
            request, 507, Reason.UNAVAILABLE,
            "The object store is full and takes no more at the moment; what is there is safe. "
            "Try again once its operator has made room.",
            headers={"Retry-After": str(FULL_RETRY_AFTER_S)},
        )  # fmt: skip
    _log.warning("answering 503", error=repr(e), trace_id=trace_id(request.scope))
    told: dict[type, str] = {
        StoreUnavailable: "The object store",
        BrokerUnavailable: "The message broker",
    }
    return problem(
        request, 503, Reason.UNAVAILABLE,
        f"{told.get(type(e), 'The database')} does not answer at the moment. Nothing is lost; try again.",
    )  # fmt: skip


def add_problems(app: FastAPI) -> None:
    """Answer every exception with a problem document; nothing shows a stack trace."""

    @app.exception_handler(UserError)
    async def user_error(request: Request, e: UserError) -> JSONResponse:
        return answer_of(request, e)

    @app.exception_handler(StoreUnavailable)
    @app.exception_handler(BrokerUnavailable)
    @app.exception_handler(DBAPIError)
    @app.exception_handler(NoConnection)
    async def away(request: Request, e: Exception) -> JSONResponse:
        return answer_of(request, e)

    @app.exception_handler(UnicodeEncodeError)
    async def half(request: Request, _: UnicodeEncodeError) -> JSONResponse:
        return problem(
            request, 422, Reason.BAD_REQUEST,
            "A text has half a surrogate pair, which is no character.",
        )  # fmt: skip

    @app.exception_handler(DataError)
    async def unfit(request: Request, e: DataError) -> JSONResponse:
        _log.info("a value no column can hold", error=repr(e), trace_id=trace_id(request.scope))
        return problem(
            request, 422, Reason.BAD_REQUEST,
            "A value cannot be stored: a number is out of range, or a text has a NUL character.",
        )  # fmt: skip

    @app.exception_handler(ObjectMissing)
    async def missing(request: Request, _: ObjectMissing) -> JSONResponse:
        return problem(request, 404, Reason.NOT_FOUND, "There is no such object.")

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, e: RequestValidationError) -> JSONResponse:
        errors = fields_of(e)
        return problem(
            request, 422, Reason.BAD_REQUEST, sentence_of(errors), more={"errors": errors}
        )

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, e: HTTPException) -> JSONResponse:
        reason = _REASON.get(e.status_code, Reason.BAD_REQUEST)
        detail = str(e.detail)
        if e.status_code == 404:
            detail = f"Nothing is at {request.url.path}; /docs lists what there is."
        elif e.status_code == 405:
            detail = f"{request.method} is not allowed on {request.url.path}; /docs lists what is."
        headers = {**(e.headers or {}), **_allowed(request)} if e.status_code == 405 else e.headers
        return problem(request, e.status_code, reason, detail, headers=headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, _: ClientDisconnect) -> JSONResponse:
        # nobody reads this answer; it keeps a broken upload out of the error log
        return problem(request, 400, Reason.BAD_REQUEST, "The request ended too early.")

    @app.exception_handler(Exception)
    async def bug(request: Request, _: Exception) -> JSONResponse:
        return problem(
            request, 500, Reason.INTERNAL,
            "Something went wrong on our side; the logs have it under this trace id.",
        )  # fmt: skip
