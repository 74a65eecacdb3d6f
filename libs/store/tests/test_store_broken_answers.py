"""Answers that break off: wherever they do, none of them is taken for a whole one."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from frond.contracts.errors import ObjectMissing, StoreUnavailable
from frond.store import ObjectStore, StoreSettings
from frond.store.s3 import NoTemporaryKeys, keys_for_writing

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
                head, _, body = asked.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                while length and len(body) < int(length[1]):
                    body += caller.recv(65536)
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
    elif what == "exists":
        assert answer is True
    else:
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


def whole(status: str, body: bytes, *headers: str) -> bytes:
    """An answer with all its headers."""
    every = (
        f"HTTP/1.1 {status}", *headers, "Content-Type: application/xml",
        f"Content-Length: {len(body)}", "Connection: close", "", "",
    )  # fmt: skip
    return "\r\n".join(every).encode() + body


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>as it says</Message></Error>".encode()


async def test_a_store_that_asks_for_patience_is_asked_again_soon(
    store: ObjectStore, line: Line
) -> None:
    """MinIO says "in a minute" with every 503, at its start above all, and is ready in a second."""
    line.says = whole("503 Service Unavailable", error("SlowDown"), "Retry-After: 60")
    async with asyncio.timeout(30):
        with pytest.raises(StoreUnavailable):
            await store.get("a.tif")


async def test_an_upload_that_was_not_completed_is_none(store: ObjectStore, line: Line) -> None:
    """S3 says 200 before it knows how it ends."""
    line.says = whole("200 OK", error("InternalError"))
    with pytest.raises(StoreUnavailable, match=r"b\.bin"):
        await store.in_thread(lambda: store.s3.end_multipart("bucket", "b.bin", "upload", []))


@pytest.mark.parametrize("body", [b"", b"<html><p>Please log in", b"<ListBucketResult><Name>a"])
async def test_a_listing_that_is_none_is_an_outage(
    store: ObjectStore, line: Line, body: bytes
) -> None:
    """A proxy before the store says 200 and a page of its own; or the listing's end is not there."""
    line.says = whole("200 OK", body)
    with pytest.raises(StoreUnavailable, match="listing"):
        [found async for found in store.list("jobs/")]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("403 Forbidden", "AccessDenied"),
        ("403 Forbidden", "InvalidObjectState"),
        ("400 Bad Request", "InvalidRequest"),
        ("400 Bad Request", "KMS.DisabledException"),
    ],
)
async def test_what_will_never_be_read_is_not_waited_for(
    store: ObjectStore, line: Line, status: str, code: str
) -> None:
    """Another's archived or encrypted object is missing; in our own bucket all is well some day."""
    line.says = whole(status, error(code))
    with pytest.raises(ObjectMissing, match=code):
        await store.get("a.tif", bucket="another")
    with pytest.raises(StoreUnavailable, match=code):
        await store.get("a.tif")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        ("501 Not Implemented", error("NotImplemented"), NoTemporaryKeys),
        ("403 Forbidden", error("AccessDenied"), NoTemporaryKeys),
        ("500 Internal Server Error", error("InternalError"), StoreUnavailable),
        ("503 Service Unavailable", error("SlowDown"), StoreUnavailable),
        ("507 Insufficient Storage", b"", StoreUnavailable),
        ("200 OK", b"", StoreUnavailable),
    ],
)
async def test_a_store_without_temporary_keys_is_not_one_that_is_busy(
    store: ObjectStore, line: Line, status: str, body: bytes, kind: type[Exception]
) -> None:
    """A sender asks again where it is an outage, and does otherwise where there are none."""
    line.says = whole(status, body)
    with pytest.raises(kind):
        await store.in_thread(lambda: keys_for_writing(store.settings, "uploads/x.tif", 3600))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n%s<html><body>login</body></html>",
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\n%s"
        b"<Error><Code>caf\xe9</Code></Error>",
    ],
)
async def test_an_answer_that_is_none_of_a_store_is_an_outage(
    store: ObjectStore, line: Line, answer: bytes
) -> None:
    """A proxy's page, or bytes in no encoding: nothing is missing, nor is it an error of the work."""
    length = len(answer) - answer.index(b"%s") - 2
    line.says = answer % b"Content-Length: %d\r\n\r\n" % length
    with pytest.raises(StoreUnavailable):
        _ = [item async for item in store.list("jobs/")]


@pytest.mark.parametrize("key", ["", "a/../b", "\udc80"])
async def test_a_name_that_no_store_holds_is_missing(store: ObjectStore, key: str) -> None:
    """Whoever waited for it would wait for ever."""
    with pytest.raises(ObjectMissing):
        await store.get(key)
    with pytest.raises(ObjectMissing):
        await store.get("key", bucket="No Bucket")
