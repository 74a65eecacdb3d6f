"""How long chunks wait for their model, or its server. Deciding code: it waits for nothing itself."""

from __future__ import annotations

import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Final

from frond.contracts.events import ChunkPlanned

_REMEMBERED: Final = 1000
_PASSES_S: Final = 120.0
"""A model none of whose chunks has come through for so long will not mend itself while one waits."""


class Patience:
    """Of one process's chunks, each for itself; those behind one that has waited long enough need
    not wait as long for the same.

    Args:
        seconds: that a chunk waits; 0: as long as it takes.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waiting: OrderedDict[str, float] = OrderedDict()
        # when a chunk of a model last had waited all its time, and the server had not answered since
        self._gave_up: dict[str, datetime] = {}

    def lasts(self, event: ChunkPlanned) -> bool:
        """Whether to wait on, after the server has failed the chunk."""
        if not self.seconds:
            return True
        now, digest = time.monotonic(), event.model.digest
        since = self._waiting.setdefault(event.chunk_id, now)
        if now - since >= self.seconds:
            self._gave_up[digest] = datetime.now(UTC)
            return False
        while len(self._waiting) > _REMEMBERED:
            self._waiting.popitem(last=False)
        # what was planned later was sent by somebody who may know that the server is well again
        gave_up, planned = self._gave_up.get(digest), event.planned_at
        return gave_up is None or planned is None or aware(planned) >= gave_up

    def answered(self, event: ChunkPlanned) -> None:
        """The server did its work: its next outage has all its time."""
        self._gave_up.pop(event.model.digest, None)

    def forget(self, event: ChunkPlanned) -> None:
        """The chunk waits no more."""
        self._waiting.pop(event.chunk_id, None)


class Failing:
    """Models of one process, by digest, of which every chunk fails."""

    def __init__(self) -> None:
        # since when, and when last
        self._models: dict[str, tuple[float, float]] = {}

    def for_long(self, digest: str) -> bool:
        """Whether a model that has just failed has done so time and again, and nothing else, for long."""
        now = time.monotonic()
        since, last = self._models.get(digest, (now, now))
        if now - last > _PASSES_S:
            # nobody knows how it was meanwhile
            since = now
        self._models[digest] = since, now
        return now - since > _PASSES_S

    def ended(self, digest: str) -> None:
        """A chunk of it came through."""
        self._models.pop(digest, None)


def aware(moment: datetime) -> datetime:
    """A moment with its zone: UTC where it has none."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def since(moment: datetime | None) -> float:
    """Seconds since a moment that another machine may have told; 0 for none."""
    if moment is None:
        return 0.0
    # clocks of two machines may differ
    return max(0.0, (datetime.now(UTC) - aware(moment)).total_seconds())
