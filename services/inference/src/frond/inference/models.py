"""The models in memory: loaded on demand by digest, so that a new version needs no restart."""

from __future__ import annotations

import asyncio
import errno
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from frond.contracts.errors import StoreUnavailable
from frond.contracts.jobs import ModelRef
from frond.inference import metrics
from frond.models import Registry
from frond.models.session import PROVIDERS, ModelSession
from frond.models.tuning import tuned
from frond.runtime import get_logger

_log = get_logger(__name__)


class ModelCache:
    """At most ``capacity`` sessions, the least recently used one dropped first.

    A dropped session lives on until the work that has it is done. Two that ask for one model at
    once get one session.
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
    ) -> None:
        self.registry = registry
        self._cache_dir = cache_dir
        self._capacity = capacity
        self._providers = tuple(providers)
        self._threads = threads
        self._batch = batch
        self._tuning_s = tuning_s
        self._sessions: OrderedDict[str, ModelSession] = OrderedDict()
        self._loading: dict[str, asyncio.Lock] = {}

    async def get(self, ref: ModelRef) -> ModelSession:
        """The session of this version.

        Raises:
            ModelRejected: there is no such version, or it cannot be run.
            StoreUnavailable: the registry did not answer, or the disk has no room just now.
        """
        if (found := self._known(ref.digest)) is not None:
            return found
        async with self._loading.setdefault(ref.digest, asyncio.Lock()):
            if (found := self._known(ref.digest)) is not None:
                return found
            started = time.monotonic()
            try:
                folder = await self.registry.fetch(ref, self._cache_dir)
            except OSError as e:
                if e.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise StoreUnavailable(f"no room for {ref.name} in {self._cache_dir}") from e
                raise
            session = await asyncio.to_thread(self._open, folder)
            took = time.monotonic() - started
            metrics.LOADING.observe(took)
            _log.info(
                "model loaded", model=ref.name, version=ref.version, digest=ref.digest,
                providers=session.providers, batch=session.batch, threads=session.threads,
                rows_alike=session.rows_alike, seconds=round(took, 3),
            )  # fmt: skip
            self._sessions[ref.digest] = session
            while len(self._sessions) > self._capacity:
                self._sessions.popitem(last=False)
            metrics.LOADED.set(len(self._sessions))
        self._loading.pop(ref.digest, None)
        return session

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
        )
