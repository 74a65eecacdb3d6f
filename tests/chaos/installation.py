"""One installation under attack: a stack of its own, N processes of each service, and a keeper that
starts again whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import httpx

from chaos.figures import Figures
from chaos.jobs import BUCKET
from frond.stack import NativeStack
from frond.stack.errors import tail
from frond.stack.paths import free_port
from frond.stack.process import Child
from frond.store import ObjectStore
from support.services import NAMES, open_store, prepare

SERVERS: Final = ("kafka", "minio")
SECRET: Final = "whsec_" + "Y2hhb3MgY2hhb3MgY2hhb3MgY2hhb3M="
API_KEY: Final = "chaos-key"
_QUICK: Final = {
    "FROND_TOPIC_PREFIX": "",
    "FROND_S3_BUCKET": BUCKET,
    "FROND_DEFAULT_MODEL": "blob",
    "FROND_API_KEY": API_KEY,
    "FROND_PUBLIC_URL": "http://frond.invalid",
    "FROND_WEBHOOK_SECRET": SECRET,
    "FROND_RECONCILE_EVERY_S": "2",
    "FROND_STALL_S": "10",
    "FROND_WINDOWS_PER_CHUNK": "8",
    "FROND_SWEEP_SECONDS": "2",
    "FROND_SWEEP_AFTER_SECONDS": "4",
    "FROND_ABANDONED_SECONDS": "60",
    "FROND_SESSION_TIMEOUT_S": "4",
    "WEBHOOK_RETRY_DELAY": "0.3",
    "WEBHOOK_MAX_RETRIES": "1000",
    "FROND_WEBHOOK_LONGEST_S": "2",
    "FROND_EGRESS_ALLOW": "127.0.0.1",
    "FROND_DEADLINE_S": "3",
    "FROND_LEASE_S": "5",
    "FROND_RESCAN_S": "3",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Needs:
    """What kind of installation a scenario wants.

    Attributes:
        proxied: services reach Kafka and MinIO through Toxiproxy.
        small_disk_mb: the servers' data lie on a disk of this size; 0: no limit.
        workers: how many processes of a service; one of each that is not named.
        env: more for the services' environment.
    """

    proxied: bool = False
    small_disk_mb: int = 0
    workers: Mapping[str, int] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def fits(self, other: Needs) -> bool:
        """Whether one installation can be both kinds at once."""
        return (self.proxied, self.small_disk_mb) == (other.proxied, other.small_disk_mb) and all(
            other.env.get(k, v) == v for k, v in self.env.items()
        )

    def __or__(self, other: Needs) -> Needs:
        """Both kinds in one; as many workers as this one wants, see :meth:`Installation.scale`."""
        return replace(self, env={**self.env, **other.env})


@dataclass
class _Process:
    name: str
    service: str
    port: int
    held: bool = False
    child: Child | None = None
    keeper: asyncio.Task[None] | None = None
    starts: int = 0


class Installation:
    """Kafka, MinIO and the services, each a process that may be killed at any moment.

    Whatever dies is started again at once, unless it is held down (:meth:`stop`). Names are
    ``tiler``, ``tiler-2``, …, ``kafka`` and ``minio``.

    Attributes:
        env: the services' FROND_* variables.
        stack: direct access for whoever looks from outside, past any proxy.
        exits: how often processes ended by themselves, by ``name: status``.
    """

    def __init__(
        self,
        folder: Path,
        figures: Figures,
        *,
        needs: Needs | None = None,
        note: Callable[..., None] | None = None,
    ) -> None:
        self.folder = folder
        self.figures = figures
        self.needs = needs or Needs()
        self.exits: Counter[str] = Counter()
        self.note = note or (lambda *_, **__: None)
        self.stack = NativeStack(
            folder / "stack", proxied=self.needs.proxied, small_disk_mb=self.needs.small_disk_mb
        )
        self.crash_points = folder / "crash-points"
        self.env: dict[str, str] = {
            **_QUICK,
            **self.stack.endpoints.env(),
            "FROND_CACHE_DIR": str(folder / "cache"),
            "FROND_CRASH_POINTS": str(self.crash_points),
            **self.needs.env,
        }
        self._processes: dict[str, _Process] = {}
        self._started: dict[int, tuple[str, Child]] = {}
        self._read_to: dict[Path, int] = {}
        self._server_keepers: dict[str, asyncio.Task[None]] = {}
        self._held_servers: set[str] = set()
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    # -- life ----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start everything and wait until all of it is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.crash_points.mkdir(exist_ok=True)
        await asyncio.to_thread(self.stack.start, lambda _: None)
        store = self.store()
        try:
            await prepare(self.env | self.stack.direct.env(), store, self.folder / "blob")
        finally:
            store.close()
        for server in SERVERS:
            self._server_keepers[server] = asyncio.create_task(self._keep_server(server))
        for service in NAMES:
            for _ in range(self.needs.workers.get(service, 1)):
                self.add(service)
        await self.ready()

    async def close(self) -> None:
        """Kill all of it."""
        self._closing = True
        tasks = [*self._server_keepers.values(), *self._starting.values()]
        tasks += [p.keeper for p in self._processes.values() if p.keeper]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, child in self._started.values():
            if child.running:
                _kill_group(child)
        for pid in self.orphans():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(self._end_servers)

    def _end_servers(self) -> None:
        for kill in (self.stack.kill_kafka, self.stack.kill_minio, self.stack.stop):
            with contextlib.suppress(Exception):
                kill()

    @property
    def drive(self) -> Path:
        """The folder in which MinIO keeps everything."""
        disk = self.stack.disks.get("s3")
        return (disk.inside if disk else self.stack.minio.data) / "drive"

    def store(self) -> ObjectStore:
        """The bucket, reached directly; whoever asks closes it."""
        return open_store({**self.env, **self.stack.direct.env()})

    # -- who is there --------------------------------------------------------------------------

    def names(self, service: str | None = None) -> list[str]:
        """Processes of a service, or of all services."""
        return [p.name for p in self._processes.values() if service in (None, p.service)]

    def everything(self) -> list[str]:
        """Every process that can be killed, servers included."""
        return [*self.names(), *SERVERS]

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._processes[name].port}"

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """The process id of whatever runs under this name now."""
        if name in SERVERS:
            return self.stack.pids().get(name)
        child = self._processes[name].child
        return child.pid if child is not None else None

    def orphans(self) -> dict[int, str]:
        """Helper processes that live on though the worker that began them has died, by process id.

        Each worker leads a process group of its own.
        """
        dead = {pid: name for pid, (name, child) in self._started.items() if not child.running}
        mine = str(self.folder).encode()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                # the command, in brackets, may hold anything
                told = (folder / "stat").read_text().rpartition(")")[2].split()
                state, group = told[0], int(told[2])
                # process ids come round again, and then belong to others
                if group in dead and state != "Z" and mine in (folder / "environ").read_bytes():
                    found[int(folder.name)] = dead[group]
        return found

    def driven_again(self) -> int:
        """How often the reconciler had to help, since this was last asked: what it repairs, at least
        once and idempotence alone have not."""
        found = 0
        for path in (self.folder / "logs").glob("aggregator*.log"):
            with path.open("rb") as log:
                log.seek(self._read_to.get(path, 0))
                found += sum(b"is driven again" in line for line in log)
                self._read_to[path] = log.tell()
        return found

    # -- trouble -------------------------------------------------------------------------------

    def kill(self, name: str) -> bool:
        """SIGKILL, counted. It is started again at once; :meth:`ready` waits for that.

        Returns:
            Whether it ran; what is dead already is not killed, nor counted.
        """
        if name in SERVERS:
            there = _server_child(self.stack, name).running
            self._kill_server(name)
            return there
        child = self._processes[name].child
        if child is None or not child.running:
            return False
        self._count_kill(name)
        child.kill()
        return True

    def kill_kafka(self) -> asyncio.Task[None]:
        """SIGKILL the broker, counted; awaiting the result waits until it answers again."""
        return self._kill_server("kafka")

    def kill_minio(self) -> asyncio.Task[None]:
        """SIGKILL the object store, counted; awaiting the result waits until it answers again."""
        return self._kill_server("minio")

    def freeze(self, name: str) -> None:
        """SIGSTOP."""
        self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self._signal(name, signal.SIGCONT)

    def add(self, service: str) -> str:
        """One more worker; returns its name."""
        taken = set(self._processes)
        name = next(n for n in _numbered(service) if n not in taken)
        self._processes[name] = process = _Process(name, service, free_port())
        self._spawn(process)
        return name

    def remove(self, name: str, sig: signal.Signals = signal.SIGTERM) -> asyncio.Task[None]:
        """A worker leaves for good; awaiting the result waits until it is gone."""
        process = self._processes.pop(name)
        process.held = True
        child = process.child
        if child is not None and child.running:
            if sig == signal.SIGKILL:
                self._count_kill(name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, sig)

        async def gone() -> None:
            if child is not None:
                await _exited(child)

        return self._task(f"remove {name}", gone())

    async def scale(self, workers: Mapping[str, int]) -> None:
        """As many workers of each service as this says, one of each that is not named."""
        gone = []
        for service in NAMES:
            there, wanted = self.names(service), workers.get(service, 1)
            gone += [self.remove(name) for name in there[wanted:]]
            for _ in range(wanted - len(there)):
                self.add(service)
        await asyncio.gather(*gone)
        await self.ready()

    def stop(self, *names: str) -> None:
        """SIGKILL, counted, and hold down. When this returns they are gone."""
        for name in names:
            if name in SERVERS:
                self._held_servers.add(name)
                if _server_child(self.stack, name).running:
                    self._count_kill(name)
                _server_kill(self.stack, name)
                continue
            process = self._processes[name]
            process.held = True
            if process.child is not None and process.child.running:
                self._count_kill(name)
                process.child.kill()

    def start(self, *names: str) -> None:
        """Start what was held down; :meth:`ready` waits for it."""
        for name in names:
            if name in SERVERS:
                self._held_servers.discard(name)
                self._start_server(name)
                continue
            process = self._processes[name]
            if process.held:
                process.held = False
                self._spawn(process)

    async def ready(self, *names: str, within: float = 120) -> None:
        """Wait until each (all that are not held down) answers that it is ready.

        Raises:
            AssertionError: one does not within the time; with the end of its log.
        """
        deadline = time.monotonic() + within
        for task in list(self._starting.values()):
            await asyncio.wait_for(asyncio.shield(task), max(0.1, deadline - time.monotonic()))
        async with httpx.AsyncClient(timeout=2, trust_env=False) as http:
            for name in names or tuple(self.names()):
                if name not in SERVERS:
                    await self._ready(http, name, deadline)

    async def _ready(self, http: httpx.AsyncClient, name: str, deadline: float) -> None:
        while (process := self._processes.get(name)) is not None and not process.held:
            with contextlib.suppress(httpx.HTTPError):
                if (await http.get(self.url(name) + "/ready")).status_code == 200:
                    return
            if time.monotonic() > deadline:
                raise AssertionError(f"{name} is not ready\n{tail(self.log(name))}")
            # nothing announces that a service has become ready
            await asyncio.sleep(0.1)

    # -- keeping -------------------------------------------------------------------------------

    def _spawn(self, process: _Process) -> None:
        name, port = process.name, str(process.port)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("FROND_")}
        env = {
            **inherited, **self.env, "FROND_HTTP_PORT": port, "API_PORT": port,
            "DATABASE_PATH": str(self.folder / f"{name}.sqlite"),
        }  # fmt: skip
        command = [sys.executable, "-m", f"frond.{process.service}"]
        process.child = Child(name, command, log=self.log(name), env=env)
        self._started[process.child.pid] = (name, process.child)
        process.starts += 1
        process.keeper = asyncio.create_task(self._keep(process, process.child))

    async def _keep(self, process: _Process, child: Child) -> None:
        began = time.monotonic()
        await _exited(child)
        if process.held or self._closing or process.child is not child:
            return
        code = child.returncode
        if code != -signal.SIGKILL:
            self.exits[f"{process.name}: {code}"] += 1
            self.note("exited", name=process.name, code=code)
            if code is not None and code < 0 and code != -signal.SIGTERM:
                self.figures.lose(f"{process.name} was ended by {signal.Signals(-code).name}")
            # one that cannot start must not be started a hundred times a second
            await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - began)))
        # it may have been held down and started again meanwhile
        if not process.held and not self._closing and process.child is child:
            self._spawn(process)

    async def _keep_server(self, name: str) -> None:
        while True:
            child = _server_child(self.stack, name)
            await _exited(child)
            if name in self._held_servers or self._closing:
                await asyncio.sleep(0.2)  # until it is started again
                continue
            if _server_child(self.stack, name) is child:
                await asyncio.shield(self._start_server(name))

    def _kill_server(self, name: str) -> asyncio.Task[None]:
        if _server_child(self.stack, name).running:
            self._count_kill(name)
            _server_kill(self.stack, name)
        return self._start_server(name)

    def _start_server(self, name: str) -> asyncio.Task[None]:
        running = self._starting.get(name)
        if running is not None and not running.done():
            return running
        start = self.stack.start_kafka if name == "kafka" else self.stack.start_minio

        async def again() -> None:
            while not self._closing and name not in self._held_servers:
                try:
                    await asyncio.to_thread(start)
                    return
                except Exception as e:  # a full disk, say: it is tried until it can
                    self.note("server did not start", name=name, error=str(e)[-500:])
                    await asyncio.sleep(1.0)

        self._starting[name] = self._task(f"start {name}", again())
        return self._starting[name]

    def _task(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks = {t for t in getattr(self, "_tasks", set()) if not t.done()} | {task}
        return task

    def _count_kill(self, name: str) -> None:
        self.figures.kills += 1
        self.figures.killed[_service(name)] += 1
        self.note("kill", name=name)

    def _signal(self, name: str, sig: signal.Signals) -> None:
        pid = self.pid(name)
        if pid is not None:
            self.note("signal", name=name, signal=sig.name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)


def _numbered(service: str) -> Any:
    yield service
    number = 2
    while True:
        yield f"{service}-{number}"
        number += 1


def _service(name: str) -> str:
    head, _, number = name.rpartition("-")
    return head if head and number.isdigit() else name


def _server_child(stack: NativeStack, name: str) -> Child:
    child = (stack.kafka if name == "kafka" else stack.minio).child
    assert child is not None
    return child


def _server_kill(stack: NativeStack, name: str) -> None:
    (stack.kill_kafka if name == "kafka" else stack.kill_minio)()


def _kill_group(child: Child) -> None:
    # whatever helper processes it had; each Child leads a session of its own
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()


async def _exited(child: Child) -> None:
    """Return once the process has ended, however."""
    if not child.running:
        return
    try:
        fd = os.pidfd_open(child.pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(fd, lambda: ended.done() or ended.set_result(None))
    try:
        await ended
    finally:
        loop.remove_reader(fd)
        os.close(fd)
