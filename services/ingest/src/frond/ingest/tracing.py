"""W3C trace context of each request: taken from its header, or begun here; and a line in the log for
each answer."""

from __future__ import annotations

import re
import secrets
import time
from typing import Any, Final

import structlog
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frond.auth import Principal, claimed_id
from frond.contracts.envelope import new_traceparent
from frond.runtime import get_logger

WHO: Final = "frond.principal"
"""Where in its scope a request's caller is, once known."""
# asked for every few seconds, and told by metrics
_QUIET: Final = frozenset({"/health", "/ready", "/metrics"})
_MOST: Final = 128
_log = get_logger(__name__)
_TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})$")


def child_of(header: str | None) -> str:
    """A traceparent of our own in the caller's trace, or in a new one."""
    m = _TRACEPARENT.match(header or "")
    if m is None:
        return new_traceparent()
    return f"00-{m.group(1)}-{secrets.token_hex(8)}-{m.group(2)}"


def traceparent(connection: HTTPConnection) -> str:
    """The traceparent that events caused by this request carry."""
    return str(connection.scope.get("frond.traceparent") or new_traceparent())


def trace_id(scope: Scope) -> str:
    """32 hex digits: what a user quotes when something went wrong."""
    own = scope.get("frond.traceparent")
    return str(own).split("-")[1] if own else ""


class Tracing:
    """ASGI middleware: a trace for every request, in the scope, the logs and the answer; and what was
    answered to whom, in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        own = child_of(headers.get(b"traceparent", b"").decode("latin-1"))
        scope["frond.traceparent"] = own
        began, status, size = time.monotonic(), 0, 0

        async def sending(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"traceparent", own.encode())]
            await send(message)
            size += len(message.get("body", b""))

        with structlog.contextvars.bound_contextvars(trace_id=own.split("-")[1]):
            try:
                await self.app(scope, receive, sending)
            except Exception:
                status = status or 500  # whoever is further out answers it
                raise
            finally:
                if scope["path"] not in _QUIET:
                    seconds = round(time.monotonic() - began, 3)
                    _log.info(
                        "answered", method=scope["method"], status=status, bytes=size,
                        seconds=seconds, **_what(scope), **_who(scope, headers),
                    )  # fmt: skip


def _what(scope: Scope) -> dict[str, Any]:
    """The route's template and the job: a path may have names of somebody's files in it, and what
    reached no route, anything."""
    route = scope.get("route")
    what = {"route": getattr(route, "path", None)}
    job_id = scope.get("path_params", {}).get("job_id")
    return what if job_id is None else {**what, "job_id": str(job_id)[:_MOST]}


def _who(scope: Scope, headers: dict[bytes, bytes]) -> dict[str, Any]:
    """The caller; where it is not known who that is, the key that it says it has."""
    who: Principal | None = scope.get(WHO)
    if who is not None:
        return {"who": who.subject, "tenant": who.tenant}
    claimed = claimed_id(headers.get(b"authorization", b"").decode("latin-1"))
    return {"claimed": f"key:{claimed}"} if claimed else {}
