"""A process that is asked to end answers what is under way, and leaves its socket to the next."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

SERVICE = """
import asyncio
from fastapi import FastAPI, Request
from frond.runtime import ServiceSettings, serve

def app(service):
    made = FastAPI()

    @made.post("/count")
    async def count(request: Request):
        n = 0
        async for data in request.stream():
            n += len(data)
        return {"bytes": n, "name": NAME}

    @made.get("/name")
    async def name():
        return NAME
    return made

serve("test", ServiceSettings(), [], make_app=app)
"""


class Process:
    """One process of the service on a socket that is the test's."""

    def __init__(self, name: str, listening: socket.socket, drain_s: float) -> None:
        env = {
            **os.environ,
            "FROND_HTTP_FD": str(listening.fileno()),
            "FROND_DRAIN_S": str(drain_s),
        }
        code = SERVICE.replace("NAME", repr(name))
        self.popen = subprocess.Popen(
            [sys.executable, "-c", code], env=env, pass_fds=[listening.fileno()],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def ended(self) -> int:
        return self.popen.wait(60)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def started(listening: socket.socket) -> Iterator[list[Process]]:
    made: list[Process] = []
    yield made
    for process in made:
        with contextlib.suppress(ProcessLookupError):
            process.popen.kill()
        process.popen.wait()


def url(listening: socket.socket, path: str) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}{path}"


def begin_upload(listening: socket.socket, length: int) -> socket.socket:
    """A POST whose body has begun, and is being read."""
    client = socket.create_connection(listening.getsockname(), 120)
    head = f"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
    client.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
    told = b""
    while not told.endswith(b"\r\n\r\n"):
        told += client.recv(1)
    # said when the handler asks for the body
    assert told.startswith(b"HTTP/1.1 100 "), told
    client.sendall(b"a" * 1000)
    return client


def asked(client: socket.socket) -> bytes:
    """What the old process answers on a connection that it keeps."""
    client.sendall(b"GET /name HTTP/1.1\r\nHost: x\r\n\r\n")
    told = b""
    while not told.endswith(b'"old"'):
        piece = client.recv(65536)
        assert piece, told
        told += piece
    return told.lower()


def answer(client: socket.socket) -> str:
    """All that comes until the other side closes."""
    client.settimeout(120)
    text = b""
    while data := client.recv(65536):
        text += data
    return text.decode()


def test_a_successor_answers_what_came_in_between(
    listening: socket.socket, started: list[Process]
) -> None:
    """A connection made after the signal is not refused: whoever comes next answers it."""
    started.append(Process("old", listening, 5))
    assert httpx.get(url(listening, "/name"), timeout=120).json() == "old"
    started[0].popen.send_signal(signal.SIGTERM)
    assert started[0].ended() == 0
    with socket.create_connection(listening.getsockname()) as client:
        client.sendall(b"GET /name HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        started.append(Process("new", listening, 5))
        assert '"new"' in answer(client)


def test_an_upload_under_way_is_finished(listening: socket.socket, started: list[Process]) -> None:
    """It has the drain time to come in; then the process ends with 0."""
    started.append(Process("old", listening, 60))
    httpx.get(url(listening, "/name"), timeout=120)
    with (
        begin_upload(listening, 3000) as client,
        socket.create_connection(listening.getsockname(), 120) as other,
    ):
        assert b"connection: close" not in asked(other)
        started[0].popen.send_signal(signal.SIGTERM)
        while b"connection: close" not in asked(other):
            pass  # it has not begun to drain
        client.sendall(b"a" * 2000)
        told = answer(client)
    assert told.startswith("HTTP/1.1 200")
    assert '"bytes":3000' in told
    assert "connection: close" in told.lower()
    assert started[0].ended() == 0


def test_an_upload_that_takes_too_long_is_asked_to_come_again(
    listening: socket.socket, started: list[Process]
) -> None:
    """At the end of the drain time: 503 with Retry-After, not a lost connection; exit code 0."""
    started.append(Process("old", listening, 5))
    httpx.get(url(listening, "/name"), timeout=120)
    with begin_upload(listening, 1 << 30) as client:
        started[0].popen.send_signal(signal.SIGTERM)
        told = answer(client)
    assert told.startswith("HTTP/1.1 503")
    assert "retry-after: 2" in told.lower()
    assert started[0].ended() == 0


def test_no_fresh_connection_is_lost_while_processes_change(
    listening: socket.socket, started: list[Process], tmp_path: Path
) -> None:
    """Requests on connections of their own, without a retry, while the old one leaves and the new
    one is there: each is answered."""
    started.append(Process("old", listening, 5))
    httpx.get(url(listening, "/name"), timeout=120)
    started.append(Process("new", listening, 5))
    names = set()
    while names != {"old", "new"}:
        names.add(httpx.get(url(listening, "/name"), timeout=120).json())
    started[0].popen.send_signal(signal.SIGTERM)
    asked = 0
    while started[0].popen.poll() is None or asked < 20:
        httpx.get(url(listening, "/name"), timeout=120).raise_for_status()
        asked += 1
    assert started[0].ended() == 0
    assert httpx.get(url(listening, "/name"), timeout=120).json() == "new"
