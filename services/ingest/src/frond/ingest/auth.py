"""Who may call: every request is identified before anything of it is read, whatever its route.

Three checks, none of which a new route can forget: :class:`Door` knows the caller of every path
that is not open; :func:`require_access` asks for the scope of the method, and for a path with a job
in it, whether that job is the caller's. Routes that need more ask for it themselves.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

import structlog
from fastapi import Request, Security
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frond.auth import Principal
from frond.auth import Scope as Right
from frond.contracts.errors import JobRejected, StoreUnavailable
from frond.contracts.reasons import Reason
from frond.ingest import tenancy
from frond.ingest.context import ingest_of
from frond.ingest.problems import answer_of
from frond.ingest.tracing import WHO

OPEN: Final = frozenset({"/", "/docs", "/openapi.json", "/health", "/ready", "/metrics"})
"""Paths that show nothing of any job, and ask for no key."""
RECHECK_S: Final = 5.0
"""How often the caller of a long upload is asked for again."""
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})

bearer = HTTPBearer(
    auto_error=False, description="an API key (frond_…), or a token of the configured issuer"
)


def who_asks(connection: HTTPConnection) -> Principal:
    """The caller of a request that came through the door."""
    return cast(Principal, connection.scope[WHO])


async def still_good(connection: HTTPConnection) -> bool:
    """Whether the key or token of a long answer would still be let in."""
    ingest = ingest_of(connection)
    try:
        who = await ingest.gate.identify(connection.headers.get("authorization"))
    except JobRejected as e:
        return e.reason is Reason.UNAVAILABLE
    except StoreUnavailable:
        return True  # an outage takes nobody's key away
    return who == who_asks(connection)


class Door:
    """ASGI middleware: identifies the caller, counts the request and its body, paces that one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        ingest = ingest_of(request)
        try:
            ingest.gate.require_own_page(request.headers)
            who = await ingest.gate.identify(request.headers.get("authorization"))
            # first: the log tells whose requests are too many
            scope[WHO] = who
            ingest.rates.admit(who.subject)
        except (JobRejected, StoreUnavailable) as e:
            await answer_of(request, e)(scope, receive, send)
            return

        loop = asyncio.get_running_loop()
        checked = loop.time()

        async def paced() -> Message:
            nonlocal checked
            message = await received()
            if message["type"] == "http.request":
                if loop.time() - checked >= RECHECK_S:
                    checked = loop.time()
                    if not await still_good(request):
                        raise JobRejected(
                            Reason.UNAUTHORIZED,
                            "This key or token was good when the request began, and is no more.",
                        )
                await ingest.rates.pace(who.subject, len(message.get("body", b"")))
            return message

        with (
            ingest.bodies.of(who.subject, request.headers, receive) as received,
            structlog.contextvars.bound_contextvars(who=who.subject),
        ):
            await self.app(scope, paced, send)


async def require_access(request: Request, _: object = Security(bearer)) -> None:
    """The scope that the method needs; and the job in the path, if there is one, is the caller's.

    Raises JobRejected (403), or Refused (404) as for a job that nobody has.
    """
    who = who_asks(request)
    who.require(Right.READ if request.method in _READING else Right.SUBMIT)
    job_id = request.path_params.get("job_id")
    if job_id is not None:
        await tenancy.require_visible(ingest_of(request), job_id, who)


async def require_pace(request: Request) -> None:
    """Raise Throttled (429) while the caller's bytes are far behind: for routes by which rasters and
    models come. Whoever may send no more of them can still complete, cancel and delete."""
    ingest_of(request).rates.admit_body(who_asks(request).subject)


async def require_admin(request: Request, _: object = Security(bearer)) -> None:
    """Raise JobRejected (403) for everybody but admins."""
    who_asks(request).require(Right.ADMIN)


__all__ = [
    "OPEN",
    "Door",
    "require_access",
    "require_admin",
    "require_pace",
    "still_good",
    "who_asks",
]
