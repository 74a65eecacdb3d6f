"""The life of a service: start, serve health and metrics, run its parts, drain, exit.

A service never lingers half dead: when one of its parts ends with an error, the process exits
with code 1 and whoever supervises it starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from frond.runtime.connections import Connection
from frond.runtime.draining import Draining
from frond.runtime.health import Health
from frond.runtime.logs import configure_logs, get_logger
from frond.runtime.settings import ServiceSettings

_SETTLE_S: Final = 0.5
_REFUSE_S: Final = 3.0
# longer than clients keep connections that they do not use (httpx: 5 s): of the two, the client has to
# close first, else a request may meet the closing
_KEEP_ALIVE_S: Final = 75
# Python's own 700 would look through the events in hand at every hundredth event
_GARBAGE: Final = (5000, 10, 10)
_log = get_logger(__name__)


class Service:
    """What a part is given: settings, health, and the wish to stop.

    Attributes:
        stop: set when the process was asked to end; a part then finishes or hands back its work
            and returns.
    """

    def __init__(self, name: str, settings: ServiceSettings) -> None:
        self.name = name
        self.settings = settings
        self.health = Health()
        self.stop = asyncio.Event()


Part = Callable[[Service], Awaitable[None]]


def add_operations(app: FastAPI, health: Health) -> None:
    """Mount ``/health``, ``/ready`` and ``/metrics``."""

    @app.get("/health", tags=["operations"], summary="Is the process alive?")
    async def alive(response: Response) -> dict[str, str]:
        if health.fatal:
            response.status_code = 503
            return {"status": "failing", "detail": health.fatal}
        return {"status": "ok"}

    @app.get("/ready", tags=["operations"], summary="Is it ready for work?")
    async def ready(response: Response) -> dict[str, object]:
        waiting = health.waiting_for
        if waiting or health.fatal:
            response.status_code = 503
            response.headers["Retry-After"] = "1"
            return {"status": "starting", "waiting_for": waiting}
        return {"status": "ready"}

    @app.get(
        "/metrics", tags=["operations"], summary="Prometheus metrics",
        response_class=PlainTextResponse,
    )  # fmt: skip
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def serve(
    name: str,
    settings: ServiceSettings,
    parts: Sequence[Part],
    *,
    make_app: Callable[[Service], FastAPI] | None = None,
) -> None:
    """Run a service until SIGTERM or SIGINT; the ``main`` of every service.

    After the signal, parts and requests under way have ``FROND_DRAIN_S`` seconds to end.

    Args:
        parts: run side by side; each returns soon after ``service.stop`` is set.
        make_app: the service's own HTTP API, to which the operations' routes are added.
    """
    configure_logs(name, settings.log_level)
    _give_way(settings.nice)
    sys.exit(asyncio.run(_serve(name, settings, parts, make_app)))


def _give_way(nice: int) -> None:
    """No less than whoever started the process had it; its threads and children are to come."""
    me = os.PRIO_PROCESS, 0
    os.setpriority(*me, max(nice, os.getpriority(*me)))


async def _serve(
    name: str,
    settings: ServiceSettings,
    parts: Sequence[Part],
    make_app: Callable[[Service], FastAPI] | None,
) -> int:
    service = Service(name, settings)
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, service.stop.set)
    app = (
        make_app(service)
        if make_app
        else FastAPI(title=f"frond-{name}", docs_url=None, redoc_url=None)
    )
    add_operations(app, service.health)
    server = _Server(app, service)
    http = asyncio.create_task(server.serve(server.inherited), name="http")
    tasks = [
        asyncio.create_task(_named(part(service)), name=getattr(part, "__name__", "part"))
        for part in parts
    ]
    stopping = asyncio.create_task(service.stop.wait(), name="stop")
    settling = asyncio.create_task(_settle(service.health))
    _log.info("started", host=settings.http_host, port=settings.http_port)
    done, _ = await asyncio.wait({http, stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    code = 0
    for task in done - {stopping}:
        if service.stop.is_set() and not task.cancelled() and task.exception() is None:
            continue  # a part may be done in the very moment in which it is asked to end
        code = 1
        error = RuntimeError("cancelled") if task.cancelled() else task.exception()
        # whoever asks for /health has shown no key
        service.health.fatal = f"{task.get_name()} ended; the log says why"
        _log.error("a part ended; the service exits", part=task.get_name(), exc_info=error)
    settling.cancel()
    end = time.monotonic() + settings.drain_s
    service.stop.set()
    answered = asyncio.create_task(server.leave(end))
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=settings.drain_s)
        for task in late:
            _log.warning("a part did not drain in time", part=task.get_name())
            task.cancel()
    await answered
    server.should_exit = True
    with contextlib.suppress(asyncio.CancelledError, TimeoutError):
        await asyncio.wait_for(http, 10)
    stopping.cancel()
    _log.info("stopped", code=code)
    return code


async def _settle(health: Health) -> None:
    await health.was_ready.wait()
    settle()


def settle() -> None:
    """Take what is there out of the garbage collector's sight, and have it look less often.

    For a process that has begun: what is there is there to the end, modules for the most part, and
    looking through it stops everything for a tenth of a second and more, again and again. What
    comes and goes is freed without the collector but for cycles, of which there are few.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)


async def _named(work: Awaitable[None]) -> None:
    await work


class _Server(uvicorn.Server):
    """uvicorn that leaves as the service wants it.

    Where it was given listening sockets by whoever supervises it, these outlive it: it accepts
    nothing more as soon as it is asked to end, and what comes then waits for its successor. A
    socket of its own it keeps open until the parts have drained.
    """

    def __init__(self, app: FastAPI, service: Service) -> None:
        settings = service.settings
        self.draining = Draining(app, service.stop)
        numbers = [int(n) for n in settings.http_fd.split(",") if n]
        # none: uvicorn listens itself
        self.inherited = [socket.socket(fileno=n) for n in numbers] or None
        super().__init__(
            uvicorn.Config(
                self.draining, host=settings.http_host, port=settings.http_port, log_config=None,
                access_log=False, timeout_graceful_shutdown=3, lifespan="on",
                timeout_keep_alive=_KEEP_ALIVE_S, http=Connection,
            )
        )  # fmt: skip

    async def leave(self, end: float) -> None:
        """Return when all requests are answered; those that come in still at the end get a 503."""
        if not self.started:
            return
        if self.inherited:
            for server in self.servers:
                server.close()
            # what was accepted just now has not said yet what it wants
            await asyncio.sleep(_SETTLE_S)
        while self.server_state.tasks:
            if time.monotonic() > end - _REFUSE_S:
                self.draining.late.set()
            if time.monotonic() > end:
                return
            await asyncio.sleep(0.1)  # uvicorn tells nobody that a request has ended

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def] # uvicorn leaves it untyped as well
        yield
