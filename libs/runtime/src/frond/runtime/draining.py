"""HTTP while a process is asked to end: what is under way is answered, what is not done in time too.

Wraps an ASGI application. Once ``stop`` is set, each answer asks its client to connect anew. Once
``late`` is set, a request whose body is still coming in is told to come again (503), and its
handler that the client is gone; the client finds another process, or this one's successor.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Message = MutableMapping[str, Any]
App = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[Message]],
        Callable[[Message], Awaitable[None]],
    ],
    Awaitable[None],
]

RETRY_AFTER_S: Final = 2
_PROBLEM: Final = {
    "type": "urn:frond:problem:unavailable",
    "title": "Service Unavailable",
    "status": 503,
    "detail": "The service is being restarted. Nothing is lost; send the request again.",
    "reason": "unavailable",
}


class Draining:
    """The application as it is while the process ends; before, it is passed through."""

    def __init__(self, app: App, stop: asyncio.Event) -> None:
        self._app = app
        self._stop = stop
        self.late = asyncio.Event()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, receive, send, self._stop, self.late)
        try:
            await self._app(scope, request.receive, request.send)
        except Exception:
            if not request.refused:
                raise
        if request.refused:
            await request.refuse()


class _Request:
    def __init__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        stop: asyncio.Event,
        late: asyncio.Event,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._stop = stop
        self._late = late
        self._whole = False
        self._answering = False
        self.refused = False

    async def receive(self) -> Message:
        if self._whole:
            # nothing but the client's leaving can come now
            return await self._receive()
        coming = asyncio.ensure_future(self._receive())
        late = asyncio.ensure_future(self._late.wait())
        try:
            await asyncio.wait({coming, late}, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                message = coming.result()
                self._whole = not message.get("more_body", False)
                return message
        finally:
            late.cancel()
            coming.cancel()
        self.refused = not self._answering
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.refused:
            return  # the handler answers somebody of whom it was told that he is gone
        if message["type"] == "http.response.start":
            self._answering = True
            if self._stop.is_set():
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
        await self._send(message)

    async def refuse(self) -> None:
        """Answer 503 in the handler's place."""
        body = json.dumps({**_PROBLEM, "instance": self._scope.get("path", "")}).encode()
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", str(RETRY_AFTER_S).encode()),
            (b"connection", b"close"),
        ]
        await self._send({"type": "http.response.start", "status": 503, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
