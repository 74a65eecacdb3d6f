"""Requests by which somebody tries to learn what is not theirs, and what no answer may hold."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

JSON = {"Content-Type": "application/json"}
BODIES: tuple[bytes, ...] = (
    b"{", b"[]", b"null", b"\xff\xfe\x00", b'{"job_id": {"a": 1}}', b'{"model": 5, "size": "x"}',
    b'{"s3_url": "s3://b/\\u0000"}', b'{"images": [1, {"image": null}]}', b"[" * 100_000,
    b'{"size": 1e999}', b'{"thresholds": {"score": NaN}}', b'{"a": "\\ud800"}',
)  # fmt: skip
HEADERS: tuple[dict[str, str], ...] = (
    {"X-Long": "a" * 60_000}, {"Idempotency-Key": "k" * 300}, {"Range": "bytes=9-1,x"},
    {"Last-Event-ID": "../" * 1000}, {"Content-Type": "multipart/form-data"},
    {"Content-Type": "application/json; charset=nonsense"}, {"If-None-Match": '"' * 99},
    {"traceparent": "00-" + "g" * 32 + "-0-1"}, {"Content-Encoding": "gzip"},
    {"Host": "internal.invalid:99999"},
)  # fmt: skip
NO_KEYS = (
    "", "Bearer", "Bearer frond_0123456789abcdef_" + "A" * 43, "Bearer " + "x" * 20_000,
    "Bearer e30.e30.e30", "Bearer frond_../../x_y", "Basic YTpi", "Bearer \xff\x00"[:-1],
)  # fmt: skip
RAW: tuple[bytes, ...] = (
    b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n", b"GET /%\xff HTTP/1.1\r\n\r\n",
    b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * (1 << 20) + b"\r\n\r\n",
)  # fmt: skip
TRACES = (
    "Traceback", 'File "', "site-packages", " object at 0x", "Errno", "Exception(", "Error(",
    "sqlalchemy", "sqlite3", "psycopg", "aiokafka", "urllib3", "pydantic", "starlette", "/vsi",
)  # fmt: skip
"""What an answer that shows its service's insides holds."""


def insides(env: dict[str, str], folder: Path) -> list[str]:
    """Words that no answer of an installation may hold: places, hosts and secrets of its own."""
    told = [env["FROND_S3_ACCESS_KEY"], env["FROND_S3_SECRET_KEY"], env["FROND_API_KEY"]]
    told += [urlsplit(env["FROND_S3_ENDPOINT"]).netloc, *env["FROND_KAFKA_BOOTSTRAP"].split(",")]
    return [*TRACES, *told, str(folder), sys.prefix, str(Path(__file__).parents[2])]


def check(answer: httpx.Response, hidden: Collection[str]) -> None:
    """An answer says nothing of what is hidden, in its headers or its body."""
    asked = f"{answer.request.method} {answer.request.url.path[:200]}"
    # what was asked for may be said again
    given = str(answer.request.url)
    whole = "\n".join(f"{k}: {v}" for k, v in answer.headers.items()) + "\n" + answer.text
    found = [h for h in hidden if h in whole and h not in given]
    assert not found, f"{asked} tells {found}: {whole[:2000]}"


def raw(url: str) -> Iterator[bytes]:
    """What the port answers to bytes that are no request."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    for sent in RAW:
        with socket.create_connection((parts.hostname, parts.port), 20) as s:
            got = b""
            try:
                s.sendall(sent)
                s.shutdown(socket.SHUT_WR)
                while piece := s.recv(1 << 16):
                    got += piece
            except OSError as e:
                # hung up on in the middle, before or after all was sent
                if not isinstance(e, ConnectionError) and e.errno != errno.ENOTCONN:
                    raise
            yield got
