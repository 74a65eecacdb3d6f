"""The read model is kept in a process of its own, so that no request waits for it.

Decoding and applying events is Python at full tilt: beside requests it would hold the interpreter's
lock. The process is forked before the service begins, while nothing of ours has a thread (those of
numpy's BLAS look after themselves), and shares its code's memory. The two talk over one line: the service says ``begin`` (the schema is migrated) and
``stop``; its keeper says what it has changed and whether it is ready. Whichever of the two dies, the
other one ends: the keeper at once, the service in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import traceback
from collections.abc import Iterable
from typing import Any, Final

from frond.ingest.context import Ingest
from frond.ingest.hub import Hub
from frond.ingest.readmodel.consumer import keep_read_model
from frond.ingest.settings import IngestSettings
from frond.runtime import (
    Health,
    Service,
    configure_logs,
    count_wait_of,
    get_logger,
    pass_waits_on,
)

_BEGIN: Final = b"begin\n"
_STOP: Final = b"stop\n"
_LINE_BYTES: Final = 1 << 20
_log = get_logger(__name__)


class Keeper:
    """The service's end of the line to its keeper."""

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid = pid
        self._line = line

    async def attend(self, service: Service, ingest: Ingest) -> None:
        """Let it begin, and pass on what it says, until it has stopped as the service does.

        Raises:
            RuntimeError: it ended by itself.
        """
        reader, writer = await asyncio.open_connection(sock=self._line, limit=_LINE_BYTES)
        stopping = asyncio.create_task(self._stop(service, writer))
        try:
            writer.write(_BEGIN)
            async for line in reader:
                _hear(service, ingest, json.loads(line))
            _, status = await asyncio.to_thread(os.waitpid, self.pid, 0)
        except BaseException:
            # it does not wait for its end to be noticed
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            raise
        finally:
            stopping.cancel()
            writer.close()
        if not service.stop.is_set() or status:
            code = os.waitstatus_to_exitcode(status)
            raise RuntimeError(f"the read model's process ended (status {code})")

    async def _stop(self, service: Service, writer: asyncio.StreamWriter) -> None:
        await service.stop.wait()
        writer.write(_STOP)


def _hear(service: Service, ingest: Ingest, told: dict[str, Any]) -> None:
    if "changed" in told:
        ingest.hub.applied(told["changed"], told["events"])
    elif "caught_up" in told:
        ingest.hub.reached()
    elif "away" in told:
        count_wait_of(told["away"])
    elif told["waits"] is None:
        service.health.ready(told["part"])
    else:
        service.health.unready(told["part"], told["waits"])


def fork_keeper(settings: IngestSettings) -> Keeper:
    """Fork the process that keeps the read model. Before there are threads, and a loop."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return Keeper(pid, ours)
    code = 1
    try:
        ours.close()
        # the line alone says when to end; a terminal and a supervisor signal all of us
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for number in settings.http_fd.split(","):
            if number:
                os.close(int(number))
        configure_logs("ingest", settings.log_level)
        asyncio.run(_keep(settings, theirs))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # nothing of what the service's own process does on leaving is ours to do
        os._exit(code)


class _Line:
    """The keeper's end: what it says."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def tell(self, **what: Any) -> None:
        self._writer.write(json.dumps(what).encode() + b"\n")

    def tell_wait(self, kind: str) -> None:
        """Whatever waits here, in whichever loop: the service counts it."""
        self.tell(away=kind)


class _ToldHub(Hub):
    """Nobody waits here: those who do are woken in the service."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def applied(self, job_ids: Iterable[str], events: int) -> None:
        self._line.tell(changed=sorted(job_ids), events=events)

    def reached(self) -> None:
        super().reached()
        self._line.tell(caught_up=True)


class _ToldHealth(Health):
    """The health of the service, of which the keeper is one part."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def expect(self, part: str, why: str = "starting") -> None:
        self._line.tell(part=part, waits=why)

    def ready(self, part: str) -> None:
        self._line.tell(part=part, waits=None)

    def unready(self, part: str, why: str) -> None:
        self._line.tell(part=part, waits=why)


async def _keep(settings: IngestSettings, line: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=line)
    if await reader.readline() != _BEGIN:
        return
    told = _Line(writer)
    pass_waits_on(told.tell_wait)
    service = Service("ingest", settings)
    service.health = _ToldHealth(told)
    ingest = Ingest(settings)
    ingest.hub = _ToldHub(told)
    keeping = asyncio.create_task(keep_read_model(service, ingest))
    asked = asyncio.create_task(reader.readline())
    await asyncio.wait({keeping, asked}, return_when=asyncio.FIRST_COMPLETED)
    if asked.done() and (asked.exception() is not None or asked.result() != _STOP):
        # the service was killed: its successor may be there already, and the database another one,
        # whose log must not be taken away by the closing of this one's
        os._exit(1)
    service.stop.set()
    await keeping
    await ingest.close()
