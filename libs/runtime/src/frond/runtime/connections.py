"""HTTP connections that do not say what they want are closed, and those that go on with what nobody reads.

uvicorn closes one that is idle after an answer; one that sends nothing, or half a head, it keeps for as
long as it lives, and the files that a process may open have an end. Of a body that comes although its request
was answered (401, 413, 429) it reads whatever there is, for ever, and at nobody's charge.
"""

from __future__ import annotations

import asyncio
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S: Final = 15.0
"""How long a request's line and headers may take, from the connection or their first byte on."""
REST_S: Final = 30.0
"""For how long the rest of a body may come whose request was answered before it was read."""
REST_BYTES: Final = 64 << 20
"""How much of it. Some clients read an answer only when they have sent all, or cannot go on."""


class Connection(H11Protocol):
    """One that has its request's head in time, and soon ends what was answered already, or is closed."""

    head_s = HEAD_S
    rest_s = REST_S
    rest_bytes = REST_BYTES
    _late: asyncio.TimerHandle | None = None
    _awaited: object = None
    _dropped = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn
        super().connection_made(transport)
        self._await(h11.IDLE, self.head_s)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        theirs = self.conn.their_state
        if theirs is h11.IDLE:
            self._await(theirs, self.head_s)
        elif theirs is h11.SEND_BODY and self.conn.our_state is h11.DONE:
            self._await(theirs, self.rest_s)
            self._dropped += len(data)
            if self._dropped > self.rest_bytes:
                self.transport.close()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _await(self, what: object, seconds: float) -> None:
        # more of the same is no reason to wait for longer
        if self._awaited is what:
            return
        self._stop_waiting()
        self._awaited = what
        self._late = self.loop.call_later(seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        self._awaited = None
        self._dropped = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None
