"""Every error of the HTTP side as RFC 9457 problem details."""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from frond.auth import Throttled
from frond.contracts.errors import ObjectMissing, StoreUnavailable, UserError
from frond.contracts.reasons import Reason
from frond.inference import metrics
from frond.runtime import get_logger

MEDIA_TYPE: Final = "application/problem+json"
_log = get_logger(__name__)

_STATUS: Final[dict[Reason, int]] = {
    Reason.BAD_REQUEST: 400,
    Reason.UNAUTHORIZED: 401,
    Reason.FORBIDDEN: 403,
    Reason.NOT_FOUND: 404,
    Reason.UNKNOWN_MODEL: 404,
    Reason.TOO_LARGE: 413,
    Reason.TOO_MANY: 413,
    Reason.RATE_LIMITED: 429,
    Reason.INTERNAL: 500,
    Reason.INFERENCE_FAILED: 500,
    Reason.UNAVAILABLE: 503,
}


def problem(
    request: Request,
    status: int,
    reason: Reason,
    detail: str,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """One problem document."""
    if request.url.path == "/predict":
        metrics.PREDICTIONS.labels(str(status)).inc()
    body: dict[str, Any] = {
        "type": f"urn:frond:problem:{reason.value}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "reason": reason.value,
    }
    return JSONResponse(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def add_problems(app: FastAPI) -> None:
    """Answer every exception with a problem document; nothing shows a stack trace."""

    @app.exception_handler(UserError)
    async def user_error(request: Request, e: UserError) -> JSONResponse:
        status = _STATUS.get(e.reason, 422)
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        if isinstance(e, Throttled):
            headers["Retry-After"] = str(e.retry_after)
        return problem(request, status, e.reason, e.detail, headers)

    @app.exception_handler(StoreUnavailable)
    async def away(request: Request, e: StoreUnavailable) -> JSONResponse:
        _log.warning("answering 503", error=repr(e))
        return problem(
            request, 503, Reason.UNAVAILABLE,
            "The object store, which holds models and keys, does not answer. Try again.",
            {"Retry-After": "5"},
        )  # fmt: skip

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, e: RequestValidationError) -> JSONResponse:
        told = "; ".join(
            f"{'.'.join(str(p) for p in err['loc'][1:]) or 'body'}: {err['msg']}"
            for err in e.errors()[:5]
        )
        return problem(request, 422, Reason.BAD_REQUEST, told)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, e: HTTPException) -> JSONResponse:
        reason = Reason.NOT_FOUND if e.status_code == 404 else Reason.BAD_REQUEST
        return problem(request, e.status_code, reason, str(e.detail), e.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, _: ClientDisconnect) -> JSONResponse:
        # nobody reads this answer; it keeps a broken upload out of the error log
        return problem(request, 400, Reason.BAD_REQUEST, "The request ended too early.")

    @app.exception_handler(ObjectMissing)
    @app.exception_handler(Exception)
    async def bug(request: Request, e: Exception) -> JSONResponse:
        _log.error("a request failed for a reason of our own", path=request.url.path, exc_info=e)
        return problem(
            request, 500, Reason.INTERNAL, "Something went wrong on our side; it is in the logs."
        )
