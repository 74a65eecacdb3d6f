"""Every error of the HTTP side as RFC 9457 problem details."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from frond.auth import Throttled
from frond.contracts.errors import (
    ModelUnavailable,
    ObjectMissing,
    StoreUnavailable,
    UserError,
)
from frond.contracts.reasons import Reason
from frond.inference import metrics
from frond.runtime import get_logger
from frond.runtime.problems import MEDIA_TYPE as MEDIA_TYPE
from frond.runtime.problems import STATUS, Problem, fields_of, sentence_of

_log = get_logger(__name__)

_STATUS: Final = {
    **STATUS,
    Reason.UNKNOWN_MODEL: 404,
    Reason.TOO_MANY: 413,
    Reason.INFERENCE_FAILED: 500,
}
_AWAY_S: Final = 5
"""After which a request to a model whose server is away may be sent again."""


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
    return Problem(request.url.path, status, reason, detail, headers=headers)


def add_problems(app: FastAPI) -> None:
    """Answer every exception with a problem document; nothing shows a stack trace."""

    @app.exception_handler(UserError)
    async def user_error(request: Request, e: UserError) -> JSONResponse:
        status = _STATUS.get(e.reason, 422)
        headers = {"Retry-After": str(e.retry_after)} if isinstance(e, Throttled) else None
        return problem(request, status, e.reason, e.detail, headers)

    @app.exception_handler(StoreUnavailable)
    async def away(request: Request, e: StoreUnavailable) -> JSONResponse:
        _log.warning("answering 503", error=repr(e))
        return problem(
            request, 503, Reason.UNAVAILABLE,
            "The object store, which holds models and keys, does not answer. Try again.",
        )  # fmt: skip

    @app.exception_handler(ModelUnavailable)
    async def server_away(request: Request, e: ModelUnavailable) -> JSONResponse:
        _log.warning("answering 503", error=repr(e))
        said = f" ({e.told})" if e.told else ""
        return problem(
            request, 503, Reason.UNAVAILABLE,
            f"The server that runs this model gives no result just now{said}. Try again.",
            {"Retry-After": str(_AWAY_S)},
        )  # fmt: skip

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, e: RequestValidationError) -> JSONResponse:
        return problem(request, 422, Reason.BAD_REQUEST, sentence_of(fields_of(e)))

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
