"""Connections that do not say what they want are closed; those that do, however slowly, are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from fastapi import FastAPI, Request

from frond.runtime import Service, ServiceSettings
from frond.runtime.connections import Connection
from frond.runtime.service import _Server

HEAD_S = 1.0
HEAD = b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"


@pytest_asyncio.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Where a service's own server listens."""
    monkeypatch.setattr(Connection, "head_s", HEAD_S)
    app = FastAPI()

    @app.post("/count")
    async def count(request: Request) -> int:
        return len(await request.body())

    server = _Server(app, Service("test", ServiceSettings()))
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 # uvicorn tells nobody
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await running


@pytest.mark.parametrize("said", [[], [b"GET / HT"], [HEAD[:-2]], [HEAD + b"xx", HEAD[:20]]])
async def test_a_head_that_does_not_come_closes_its_connection(
    port: int, said: list[bytes]
) -> None:
    """Nothing, half a line, half the headers, half of a second request; a byte now and then is no
    more."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for data in said:
            writer.write(data)
            await asyncio.sleep(0.1)
        closed = asyncio.create_task(reader.read())
        while not closed.done():
            if said:
                writer.write(b"x")
            await asyncio.wait({closed}, timeout=HEAD_S / 4)
        writer.close()


async def test_slow_bodies_and_idle_connections_stay(port: int) -> None:
    """A body may take longer than a head, and a connection rest for longer between requests."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            for part in (HEAD[:10], HEAD[10:], b"x", b"x"):
                writer.write(part)
                await asyncio.sleep(0.6 * HEAD_S)
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
            assert (await reader.readuntil(b"\r\n\r\n")).endswith(b"\r\n\r\n")
            assert await reader.read(1) == b"2"
            await asyncio.sleep(1.5 * HEAD_S)
        writer.close()
