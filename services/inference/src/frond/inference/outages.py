"""How long chunks wait for their model, or its server. Deciding code: it waits for nothing itself."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from frond.contracts.events import ChunkPlanned

_REMEMBERED: Final = 1000
_MODELS: Final = 100
_PASSES_S: Final = 120.0
"""A model none of whose chunks has come through for so long will not mend itself while one waits; and
what was seen so long ago says nothing of now."""
_TRIED_S: Final = 30.0
"""From one chunk that failed to the next that is tried, of those that wait no more."""


@dataclass(slots=True)
class _GivenUp:
    """A model of which a chunk has waited all its time, and whose server has not answered since.

    Attributes:
        at: when that was, of the last such chunk.
        jobs: that were sent before.
        failed: when a chunk last was tried in vain, and what the server said then.
        trial: the one chunk of those that wait no more that is tried just now.
    """

    at: datetime
    jobs: OrderedDict[str, None] = field(default_factory=OrderedDict)
    failed: float = 0.0
    told: str = ""
    trial: str | None = None

    def add(self, job_id: str) -> None:
        self.jobs[job_id] = None
        self.jobs.move_to_end(job_id)
        _trim(self.jobs, _REMEMBERED)

    def concerns(self, event: ChunkPlanned) -> bool:
        """Whether its job was sent before. One sent later is by somebody who may know that the server is
        well again."""
        planned = event.planned_at
        known = event.job_id in self.jobs or (planned is not None and aware(planned) < self.at)
        if known:
            # what is planned of it later on was sent before, too
            self.add(event.job_id)
        return known


class Patience:
    """Of one process's chunks, each for itself, until one has waited all its time: then those of all
    jobs that were sent before wait no more for this model. Most of these are not even tried.

    Args:
        seconds: that a chunk waits; 0: as long as it takes.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waiting: OrderedDict[str, float] = OrderedDict()
        self._given_up: OrderedDict[str, _GivenUp] = OrderedDict()

    def spent(self, event: ChunkPlanned) -> str | None:
        """What the server said last, for a chunk that is not to be tried; None: it is.

        One is tried now and then: the server may be well again. Where none was for long, as many as
        come are.
        """
        known = self._given_up.get(event.model.digest)
        if known is None or not known.concerns(event):
            return None
        if known.trial is None:
            ago = time.monotonic() - known.failed
            if ago > _PASSES_S:
                return None
            if ago > _TRIED_S:
                known.trial = event.chunk_id
        return None if known.trial == event.chunk_id else known.told

    def lasts(self, event: ChunkPlanned, told: str) -> bool:
        """Whether to wait on, after the server has failed the chunk, and said this."""
        if not self.seconds:
            return True
        now, digest = time.monotonic(), event.model.digest
        since = self._waiting.setdefault(event.chunk_id, now)
        _trim(self._waiting, _REMEMBERED)
        if now - since >= self.seconds:
            self._give_up(event)
        if (known := self._given_up.get(digest)) is None:
            return True
        known.failed, known.told = now, told
        return not known.concerns(event)

    def _give_up(self, event: ChunkPlanned) -> None:
        now, digest = datetime.now(UTC), event.model.digest
        known = self._given_up.setdefault(digest, _GivenUp(now))
        known.at = now
        known.add(event.job_id)
        self._given_up.move_to_end(digest)
        _trim(self._given_up, _MODELS)

    def answered(self, event: ChunkPlanned) -> None:
        """The server did its work, or refused it: its next outage has all its time."""
        self._given_up.pop(event.model.digest, None)

    def forget(self, event: ChunkPlanned) -> None:
        """The chunk waits no more."""
        self._waiting.pop(event.chunk_id, None)
        known = self._given_up.get(event.model.digest)
        if known is not None and known.trial == event.chunk_id:
            known.trial = None


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


def _trim(remembered: OrderedDict[str, Any], most: int) -> None:
    while len(remembered) > most:
        remembered.popitem(last=False)


def aware(moment: datetime) -> datetime:
    """A moment with its zone: UTC where it has none."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def since(moment: datetime | None) -> float:
    """Seconds since a moment that another machine may have told; 0 for none."""
    if moment is None:
        return 0.0
    # clocks of two machines may differ
    return max(0.0, (datetime.now(UTC) - aware(moment)).total_seconds())
