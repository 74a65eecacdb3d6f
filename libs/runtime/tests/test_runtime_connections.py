"""Connections that do not say what they want, or go on with what was refused, are closed; others, however
slow, are not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from fastapi import FastAPI, Request

from frond.runtime import Service, ServiceSettings
from frond.runtime.connections import Connection
from frond.runtime.service import _Server
from support.clock import Clock

HEAD_S = 20.0
REST_S = 20.0
HEAD = b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"


@pytest_asyncio.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def passes(clock: Clock, seconds: float) -> None:
    """So much time, once what was sent before has had a little to arrive."""
    await asyncio.sleep(0.1)
    clock.forward(seconds)
    await asyncio.sleep(0.1)


@pytest_asyncio.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Where a service's own server listens."""
    monkeypatch.setattr(Connection, "head_s", HEAD_S)
    monkeypatch.setattr(Connection, "rest_s", REST_S)
    app = FastAPI()

    @app.post("/count")
    async def count(request: Request) -> int:
        return len(await request.body())

    @app.post("/refuse", status_code=401)
    async def refuse() -> int:
        return 7

    server = _Server(app, Service("test", ServiceSettings()))
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 # uvicorn tells nobody
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await running


@pytest.mark.parametrize("said", [[], [b"GET / HT"], [HEAD[:-2]], [HEAD + b"xx", HEAD[:20]]])
async def test_a_head_that_does_not_come_closes_its_connection(
    port: int, clock: Clock, said: list[bytes]
) -> None:
    """Nothing, half a line, half the headers, half of a second request; a byte now and then is no
    more."""
    async with asyncio.timeout(10 * HEAD_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for data in said:
            writer.write(data)
            await asyncio.sleep(0.1)
        closed = asyncio.create_task(reader.read())
        while not closed.done():
            if said:
                writer.write(b"x")
            await passes(clock, HEAD_S / 4)
        writer.close()


async def test_slow_bodies_and_idle_connections_stay(port: int, clock: Clock) -> None:
    """A body may take longer than a head, and a connection rest for longer between requests."""
    async with asyncio.timeout(20 * HEAD_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            for part in (HEAD[:10], HEAD[10:], b"x", b"x"):
                writer.write(part)
                await passes(clock, 0.6 * HEAD_S)
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
            assert (await reader.readuntil(b"\r\n\r\n")).endswith(b"\r\n\r\n")
            assert await reader.read(1) == b"2"
            await passes(clock, 1.5 * HEAD_S)
        writer.close()


async def refused(port: int, length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection whose request was answered before its body came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    writer.write(head.encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401")
    assert await reader.read(1) == b"7"
    return reader, writer


async def closing(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""


async def test_a_refused_body_that_goes_on_slowly_closes_its_connection(
    port: int, clock: Clock
) -> None:
    """A byte now and then renews nothing."""
    async with asyncio.timeout(10 * REST_S):
        reader, writer = await refused(port, 1_000_000)
        closed = asyncio.create_task(closing(reader))
        while not closed.done():
            writer.write(b"x")
            await passes(clock, REST_S / 4)
        writer.close()


async def test_a_refused_body_that_goes_on_fast_closes_its_connection(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many bytes, and not before."""
    monkeypatch.setattr(Connection, "rest_s", 60.0)
    monkeypatch.setattr(Connection, "rest_bytes", 1 << 20)
    async with asyncio.timeout(20):
        reader, writer = await refused(port, 10 << 30)
        closed = asyncio.create_task(closing(reader))
        writer.write(bytes(1 << 20))
        await asyncio.sleep(0.5)
        assert not closed.done()
        writer.write(b"x")
        await closed
        writer.close()


async def test_a_refused_body_that_ends_keeps_its_connection(port: int, clock: Clock) -> None:
    """The next requests on it are answered, the second one after more time than the rest had."""
    async with asyncio.timeout(10 * REST_S):
        reader, writer = await refused(port, 2)
        for part in (b"x", b"x" + HEAD + b"xx", HEAD + b"xx"):
            writer.write(part)
            await passes(clock, 0.6 * REST_S)
        for _ in range(2):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.read(1) == b"2"
        writer.close()
