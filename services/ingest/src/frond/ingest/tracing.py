"""W3C trace context of each request: taken from its header, or begun here."""

from __future__ import annotations

import re
import secrets

import structlog
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frond.contracts.envelope import new_traceparent

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
    """ASGI middleware: a trace for every request, in the scope, the logs and the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        own = child_of(headers.get(b"traceparent", b"").decode("latin-1"))
        scope["frond.traceparent"] = own

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"traceparent", own.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(trace_id=own.split("-")[1]):
            await self.app(scope, receive, sending)
