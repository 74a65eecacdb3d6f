"""Loads versions that aliases begin to point at beside the work, before any of their own waits for it."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

from frond.contracts.errors import ModelRejected, Outage
from frond.contracts.jobs import ModelRef
from frond.inference import metrics
from frond.inference.models import ModelCache
from frond.models.aliases import Alias
from frond.models.registry import DEFAULT_ALIAS
from frond.runtime import get_logger

_LOOK_S: Final = 1.0
_ASIDE_S: Final = 300.0
"""What cannot be loaded is left alone for so long."""
_AWAY_S: Final = 10.0
_log = get_logger(__name__)


class Pointing(Protocol):
    """Where aliases point. Raises ModelRejected or StoreUnavailable."""

    async def get(self, name: str, alias: str) -> Alias | None: ...


class Warming:
    """Loads versions into ``models``, one at a time; loading one tries it out.

    One that cannot be loaded is told of in the log, and takes the place of none that answers.
    """

    def __init__(self, models: ModelCache, aliases: Pointing) -> None:
        self._models = models
        self._aliases = aliases
        self._pointed: dict[str, str] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, float] = {}
        self._one = asyncio.Lock()

    def choose(self, old: ModelRef, new: ModelRef) -> ModelRef:
        """Which version answers, of the one that did and the one that is meant now: the old one while it
        is in memory and the new one is not, which begins to be loaded."""
        if self._models.holds(new) or not self._models.holds(old):
            return new
        self.begin(new)
        return old

    def begin(self, ref: ModelRef) -> None:
        """Load a version, unless it is in memory, on its way there, or set aside."""
        digest = ref.digest
        waits = time.monotonic() < self._not_before.get(digest, 0.0)
        if waits or digest in self._loading or self._models.holds(ref):
            return
        task = self._loading[digest] = asyncio.create_task(self._load(ref))
        task.add_done_callback(lambda _: self._loading.pop(digest, None))

    async def watch(self) -> None:
        """Look where ``production`` points, over and over; at its end, what is being loaded is left."""
        try:
            while True:
                try:
                    await self.look()
                except Exception as e:
                    _log.error("looking at aliases failed for a reason of our own", exc_info=e)
                await asyncio.sleep(_LOOK_S)
        finally:
            for task in self._loading.values():
                task.cancel()

    async def look(self) -> None:
        """Begin to load what ``production`` has moved to, of models of which a version is in memory.

        What it points to at first sight is left to whoever asks for it: a process that dies of a
        version must not do so again as soon as it is there. Where one model alone is kept, none
        is loaded: it would have to make room again for the old one's jobs.
        """
        for name in self._models.names() if self._models.capacity > 1 else ():
            try:
                held = await self._aliases.get(name, DEFAULT_ALIAS)
            except (ModelRejected, Outage) as e:
                _log.debug("an alias cannot be read", model=name, error=repr(e))
                continue
            if held is None or self._pointed.setdefault(name, held.digest) == held.digest:
                continue
            ref = ModelRef(name=name, digest=held.digest, version=held.version)
            if self._models.holds(ref):
                self._pointed[name] = held.digest
            self.begin(ref)

    async def _load(self, ref: ModelRef) -> None:
        about = {"model": ref.name, "version": ref.version, "digest": ref.digest}
        try:
            async with self._one:
                await self._models.get(ref)
        except Outage as e:
            self._not_before[ref.digest] = time.monotonic() + _AWAY_S
            _log.warning("a version is not loaded yet", error=repr(e), **about)
        except Exception as e:
            self._not_before[ref.digest] = time.monotonic() + _ASIDE_S
            metrics.WARMED.labels("failed").inc()
            _log.error("a version that an alias points at cannot be loaded", error=str(e), **about)
        else:
            metrics.WARMED.labels("done").inc()
