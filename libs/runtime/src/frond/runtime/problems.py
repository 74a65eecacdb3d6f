"""Errors of every HTTP door as RFC 9457 problem details, ``application/problem+json``."""

from __future__ import annotations

import http
import json
from collections.abc import Mapping
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from frond.contracts.reasons import Reason

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 5
_MOST_TOLD: Final = 5
MOST_FIELDS: Final = 20
"""Of how many fields an answer tells that they are wrong."""
STATUS: Final[Mapping[Reason, int]] = {
    Reason.BAD_REQUEST: 400,
    Reason.UNAUTHORIZED: 401,
    Reason.FORBIDDEN: 403,
    Reason.NOT_FOUND: 404,
    Reason.TOO_LARGE: 413,
    Reason.RATE_LIMITED: 429,
    Reason.INTERNAL: 500,
    Reason.UNAVAILABLE: 503,
}
"""What a reason's status is at every door; doors add their own."""
_HEADERS: Final[Mapping[int, Mapping[str, str]]] = {
    401: {"WWW-Authenticate": "Bearer"},
    503: {"Retry-After": str(RETRY_AFTER_S)},
}


class Problem(JSONResponse):
    """One problem document: type, title, status, detail, instance, and our reason.

    Args:
        instance: the path that was asked for.
        more: further members.
    """

    def __init__(
        self,
        instance: str,
        status: int,
        reason: Reason,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        body = {
            "type": f"urn:frond:problem:{reason.value}",
            "title": http.HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "instance": instance,
            "reason": reason.value,
            **(more or {}),
        }
        told = {**_HEADERS.get(status, {}), **(headers or {})}
        super().__init__(body, status, headers=told, media_type=MEDIA_TYPE)

    def render(self, content: Any) -> bytes:
        # a problem may quote text that is no Unicode
        return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")


def fields_of(e: RequestValidationError) -> list[dict[str, str]]:
    """What is wrong with a request, field by field."""
    return [
        {"field": ".".join(str(p) for p in err["loc"][1:]) or "body", "message": err["msg"]}
        for err in e.errors()[:MOST_FIELDS]
    ]


def sentence_of(fields: list[dict[str, str]]) -> str:
    """The first of them in one line."""
    return "; ".join(f"{f['field']}: {f['message']}" for f in fields[:_MOST_TOLD])
