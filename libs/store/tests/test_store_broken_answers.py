"""Answers that break off: wherever they do, none of them is taken for a whole one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from frond.contracts.errors import StoreUnavailable
from frond.store import ObjectStore, StoreSettings

BODY = b"pixels" * 3
# as MinIO sends them, in its order
HEADERS = (
    b"HTTP/1.1 206 Partial Content\r\n"
    b"Accept-Ranges: bytes\r\n"
    b"Content-Length: 18\r\n"
    b"Content-Range: bytes 0-17/18\r\n"
    b"Content-Type: image/tiff\r\n"
    b'ETag: "0123456789abcdef0123456789abcdef"\r\n'
    b"Last-Modified: Sat, 21 Nov 2026 10:00:00 GMT\r\n"
    b"Server: MinIO\r\n"
    b"x-amz-meta-sha256: 00\r\n"
    b"\r\n"
)


class Line:
    """A server that says so much of one answer to every request, and hangs up."""

    def __init__(self) -> None:
        self.says = HEADERS + BODY
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return
            with caller:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += caller.recv(65536)
                # a HEAD's answer has no body
                caller.sendall(self.says[: len(HEADERS)] if asked[:4] == b"HEAD" else self.says)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


@pytest.fixture
def store(line: Line) -> Iterator[ObjectStore]:
    made = ObjectStore(
        StoreSettings(f"http://127.0.0.1:{line.port}", "key", "secret" * 3, "bucket")
    )
    yield made
    made.close()


Ask = Callable[[ObjectStore], Awaitable[Any]]
ASKED: dict[str, Ask] = {
    "get": lambda s: s.get("a.tif"),
    "the first bytes": lambda s: s.head_bytes("a.tif", 512),
    "stat": lambda s: s.stat("a.tif"),
    "exists": lambda s: s.exists("a.tif"),
}


@pytest.mark.parametrize("what", ASKED)
async def test_a_whole_answer_is_taken(store: ObjectStore, what: str) -> None:
    """The line itself is well: what follows breaks because it breaks off."""
    answer = await ASKED[what](store)
    if what == "get":
        assert answer == BODY
    elif what != "exists":
        stat = answer[0] if what == "the first bytes" else answer
        assert (stat.size, stat.etag) == (18, "0123456789abcdef0123456789abcdef")


@pytest.mark.parametrize("what", ASKED)
async def test_an_answer_that_breaks_off_is_an_outage(
    store: ObjectStore, line: Line, what: str
) -> None:
    """After each header's line, and in the middle of each: an outage, and neither an object of no
    bytes, nor one without an ETag, nor none at all."""
    ends = [i + 2 for i in range(len(HEADERS)) if HEADERS[i : i + 2] == b"\r\n"]
    cuts = sorted({0, 5, *ends[:-1], *(e - 7 for e in ends[1:-1]), len(HEADERS) - 1})
    if what in ("get", "the first bytes"):
        cuts += [len(HEADERS), len(HEADERS) + 7]
    taken = {}

    async def ask(cut: int) -> None:
        line.says = (HEADERS + BODY)[:cut]
        with contextlib.suppress(StoreUnavailable):
            taken[cut] = await ASKED[what](store)

    async with asyncio.timeout(60):
        for cut in cuts:
            await ask(cut)
    assert taken == {}
