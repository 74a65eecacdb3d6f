"""The models in memory: loaded on demand by digest, so that a new version needs no restart."""

from __future__ import annotations

import asyncio
import errno
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from prometheus_client import Gauge

from frond.contracts.errors import ModelUnavailable, StoreUnavailable
from frond.contracts.jobs import ModelRef
from frond.inference import metrics
from frond.models import Registry, load_manifest
from frond.models.session import PROVIDERS, ModelSession
from frond.models.tuning import tuned
from frond.runtime import get_logger

_SERVED: Final = 32
"""Models that servers run, beside those in memory."""
_log = get_logger(__name__)


class ModelCache:
    """At most ``capacity`` sessions, the least recently used one dropped first. Models that servers
    run are counted apart.

    A dropped session lives on until the work that has it is done. Two that ask for one model at
    once get one session, or one error of its server.

    Args:
        servers: base URLs of those that may run models.
        loaded: shows how many there are.

    Attributes:
        capacity: as given.
    """

    def __init__(
        self,
        registry: Registry,
        cache_dir: Path,
        *,
        capacity: int = 3,
        providers: Sequence[str] = PROVIDERS,
        threads: int = 0,
        batch: int = 0,
        tuning_s: float = 0.0,
        servers: Sequence[str] = (),
        loaded: Gauge = metrics.LOADED,
    ) -> None:
        self.registry = registry
        self._cache_dir = cache_dir
        self.capacity = capacity
        self._providers = tuple(providers)
        self._threads = threads
        self._batch = batch
        self._tuning_s = tuning_s
        self._servers = tuple(servers)
        self._loaded = loaded
        self._asking = ThreadPoolExecutor(_SERVED, thread_name_prefix="asking")
        self._sessions: OrderedDict[str, ModelSession] = OrderedDict()
        self._loading: dict[str, asyncio.Lock] = {}
        # in words: an exception would keep the frames it went through, and their arrays
        self._away: dict[str, tuple[float, str, str]] = {}

    async def get(self, ref: ModelRef) -> ModelSession:
        """The session of this version.

        Raises:
            ModelRejected: there is no such version, or it cannot be run.
            StoreUnavailable: the registry did not answer, or the disk has no room just now.
            ModelUnavailable: the server that runs it did not answer.
        """
        asked = time.monotonic()
        if (found := self._known(ref.digest)) is not None:
            return found
        async with self._loading.setdefault(ref.digest, asyncio.Lock()):
            if (found := self._known(ref.digest)) is not None:
                return found
            started = time.monotonic()
            at, *words = self._away.get(ref.digest, (asked,))
            if at > asked:
                # whoever waited meanwhile need not wait for a time-out of their own
                raise ModelUnavailable(*words)
            try:
                folder = await self.registry.fetch(ref, self._cache_dir)
            except OSError as e:
                if e.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise StoreUnavailable(f"no room for {ref.name} in {self._cache_dir}") from e
                raise
            try:
                manifest = await asyncio.to_thread(load_manifest, folder)
                # threads of their own: those of the loop serve the store, too
                threads = None if manifest.server is None else self._asking
                session = await asyncio.get_running_loop().run_in_executor(
                    threads, self._open, folder
                )
            except ModelUnavailable as e:
                self._away[ref.digest] = (time.monotonic(), str(e), e.told)
                raise
            self._away.pop(ref.digest, None)
            took = time.monotonic() - started
            metrics.LOADING.observe(took)
            _log.info(
                "model loaded", model=ref.name, version=ref.version, digest=ref.digest,
                providers=session.providers, batch=session.batch, threads=session.threads, concurrency=session.concurrency,
                rows_alike=session.rows_alike, seconds=round(took, 3),
            )  # fmt: skip
            self._sessions[ref.digest] = session
            self._make_room(session.remote)
            self._loaded.set(len(self._sessions))
        self._loading.pop(ref.digest, None)
        return session

    def holds(self, ref: ModelRef) -> bool:
        """Whether this version is in memory."""
        return ref.digest in self._sessions

    def names(self) -> Collection[str]:
        """The models of which a version is in memory."""
        return {s.manifest.name for s in self._sessions.values()}

    def _make_room(self, remote: bool) -> None:
        """What a server runs takes next to no memory: it costs no model of this machine its place."""
        alike = [digest for digest, s in self._sessions.items() if s.remote == remote]
        for digest in alike[: -(_SERVED if remote else self.capacity)]:
            del self._sessions[digest]

    def _known(self, digest: str) -> ModelSession | None:
        found = self._sessions.get(digest)
        if found is not None:
            self._sessions.move_to_end(digest)
        return found

    def _open(self, folder: Path) -> ModelSession:
        return tuned(
            folder,
            providers=self._providers,
            threads=self._threads,
            batch=self._batch,
            cache_dir=self._cache_dir,
            seconds=self._tuning_s,
            servers=self._servers,
        )
