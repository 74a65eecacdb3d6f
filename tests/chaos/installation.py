"""One installation under attack: a stack of its own and N processes of each service."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import httpx

from chaos import verdict
from chaos.figures import Figures
from chaos.jobs import BUCKET
from chaos.servers import SERVERS, Servers
from chaos.workers import Workers, service_of
from frond.runtime.crashpoints import FIRED
from frond.stack import NativeStack
from frond.stack.errors import tail
from frond.store import ObjectStore
from support.services import NAMES, open_store, prepare

SECRET: Final = "whsec_" + "Y2hhb3MgY2hhb3MgY2hhb3MgY2hhb3MgY2hhb3M="
API_KEY: Final = "chaos-key"
_QUICK: Final = {
    "FROND_TOPIC_PREFIX": "",
    "FROND_S3_BUCKET": BUCKET,
    "FROND_DEFAULT_MODEL": "blob",
    "FROND_API_KEY": API_KEY,
    "FROND_PUBLIC_URL": "http://frond.invalid",
    "FROND_WEBHOOK_SECRET": SECRET,
    "FROND_RECONCILE_EVERY_S": "2",
    # nothing is helped: at least once and idempotence alone have to do it
    "FROND_STALL_S": "3600",
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
    "FROND_LEASE_S": "10",
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


class Installation:
    """Kafka, MinIO and the services, each a process that may be killed at any moment.

    Whatever dies is started again at once, unless it is held down (:meth:`stop`). Names are
    ``tiler``, ``tiler-2``, …, ``kafka`` and ``minio``.

    Attributes:
        env: the services' FROND_* variables; what changes holds for processes started thereafter.
        stack: direct access for whoever looks from outside, past any proxy.
        figures: what kills are counted in, and who ended by itself. ``note`` is told of them.
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
        self._excused: set[tuple[str, int]] = set()
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
        self._servers = Servers(
            self.stack, killed=self._killed, fell=self._fell,
            note=lambda *a, **more: self.note(*a, **more),
        )  # fmt: skip
        self._workers = Workers(
            folder, self.env, killed=self._killed, fell=self._fell, crashed=self._crashed
        )

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
        self._servers.keep()
        for service in NAMES:
            for _ in range(self.needs.workers.get(service, 1)):
                self.add(service)
        await self.ready()

    async def close(self) -> None:
        """Kill all of it."""
        await self._workers.close()
        await self._servers.close()

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
        return self._workers.names(service)

    def everything(self) -> list[str]:
        """Every process that can be killed, servers included."""
        return [*self.names(), *SERVERS]

    def url(self, name: str) -> str:
        return self._workers.url(name)

    def log(self, name: str) -> Path:
        return self._workers.log(name)

    def pid(self, name: str) -> int | None:
        """The process id of whatever runs under this name now."""
        return self._servers.pid(name) if name in SERVERS else self._workers.pid(name)

    def orphans(self) -> dict[int, str]:
        """Helper processes that live on though the worker that began them has died, by process id."""
        return self._workers.orphans()

    def driven_again(self) -> Counter[str]:
        """How often the reconciler drove each job again, since this was last asked: what it repairs,
        at least once and idempotence alone have not."""
        return self._workers.driven_again()

    # -- trouble -------------------------------------------------------------------------------

    def kill(self, name: str) -> bool:
        """SIGKILL, counted. It is started again at once; :meth:`ready` waits for that.

        Returns:
            Whether it ran; what is dead already is not killed, nor counted.
        """
        if name not in SERVERS:
            return self._workers.kill(name)
        there = self._servers.child(name).running
        self._servers.kill(name)
        return there

    def kill_kafka(self) -> asyncio.Task[None]:
        """SIGKILL the broker, counted; awaiting the result waits until it answers again."""
        return self._servers.kill("kafka")

    def kill_minio(self) -> asyncio.Task[None]:
        """SIGKILL the object store, counted; awaiting the result waits until it answers again."""
        return self._servers.kill("minio")

    def freeze(self, name: str) -> None:
        """SIGSTOP."""
        self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self._signal(name, signal.SIGCONT)

    def add(self, service: str) -> str:
        """One more worker; returns its name."""
        return self._workers.add(service)

    def remove(self, name: str, sig: signal.Signals = signal.SIGTERM) -> asyncio.Task[None]:
        """A worker leaves for good; awaiting the result waits until it is gone."""
        self.note("remove", name=name, signal=sig.name)
        return self._workers.remove(name, sig)

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
            (self._servers if name in SERVERS else self._workers).stop(name)

    def start(self, *names: str) -> None:
        """Start what was held down; :meth:`ready` waits for it."""
        for name in names:
            (self._servers if name in SERVERS else self._workers).start(name)

    async def ready(self, *names: str, within: float = 120) -> None:
        """Wait until each (all that are not held down) answers that it is ready.

        Raises:
            AssertionError: one does not within the time; with the end of its log.
        """
        deadline = time.monotonic() + within
        await self._servers.up(within)
        async with httpx.AsyncClient(timeout=2, trust_env=False) as http:
            for name in names or tuple(self.names()):
                if name not in SERVERS:
                    await self._ready(http, name, deadline)

    async def _ready(self, http: httpx.AsyncClient, name: str, deadline: float) -> None:
        while self._workers.there(name):
            with contextlib.suppress(httpx.HTTPError):
                if (await http.get(self.url(name) + "/ready")).status_code == 200:
                    return
            if time.monotonic() > deadline:
                raise AssertionError(f"{name} is not ready\n{tail(self.log(name))}")
            # nothing announces that a service has become ready
            await asyncio.sleep(0.1)

    # -- the count -----------------------------------------------------------------------------

    def _killed(self, name: str) -> None:
        self.figures.kills += 1
        self.figures.killed[service_of(name)] += 1
        self.note("kill", name=name)

    def _fell(self, name: str, code: int | None) -> None:
        self.note("exited", name=name, code=code)
        verdict.fell(self.figures, name, code, ours=name not in SERVERS)

    def _crashed(self, name: str) -> bool:
        """Whether a crash point of this process's service has fired; each explains one death."""
        for token in (self.crash_points / FIRED).glob(f"{service_of(name)}.*"):
            # the same name may be laid out again
            this = (token.name, token.stat().st_ctime_ns)
            if this not in self._excused:
                self._excused.add(this)
                return True
        return False

    def _signal(self, name: str, sig: signal.Signals) -> None:
        pid = self.pid(name)
        if pid is not None:
            self.note("signal", name=name, signal=sig.name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)
