"""Periods of live windows, one model at a time: tallies in, events out. No thread, no clock of its own.

How long a period lasts is measured by a clock that nobody sets; what the time was is told by the
one that people read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from frond.contracts.drift import DriftBounds
from frond.contracts.events import DriftObserved
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import ModelManifest
from frond.drift.tally import Tally
from frond.drift.verdicts import compare_bands, compare_finds, compare_scores, worst

MOST_MODELS: Final = 16
"""Whose periods run at once: of one more, the period that rests longest ends early."""
EndedBy = Literal["time", "windows", "stop", "room"]


@dataclass(frozen=True, slots=True)
class Length:
    """When a period ends: whichever comes first.

    Attributes:
        seconds: since its first window.
        windows: looked at.
    """

    seconds: float = 3600.0
    windows: int = 2000


@dataclass(slots=True)
class _Period:
    model: ModelRef
    manifest: ModelManifest
    number: int
    began: float
    tally: Tally


class Periods:
    """Tumbling periods by model digest: each window is in exactly one. A period begins with its
    first window, so that none is empty.

    Args:
        observer: 32 hex digits, of this process and no other.
        clock: the time of now, with its zone; may be set, forth and back.
        steady: seconds since some moment; never goes back.
    """

    def __init__(
        self,
        observer: str,
        clock: Callable[[], datetime],
        steady: Callable[[], float],
        length: Length | None = None,
        bounds: DriftBounds | None = None,
    ) -> None:
        self._observer = observer
        self._clock = clock
        self._steady = steady
        self._length = length or Length()
        self._bounds = bounds or DriftBounds()
        # the one that rests longest first
        self._open: OrderedDict[str, _Period] = OrderedDict()
        self._number = 0

    def saw(self, model: ModelRef, manifest: ModelManifest, tally: Tally) -> list[DriftObserved]:
        """Count what was seen of some windows; the periods that are over by now."""
        out = self.due()
        period = self._open.get(model.digest)
        if period is None:
            empty = Tally.empty(len(manifest.bands))
            self._number += 1
            period = _Period(model, manifest, self._number, self._steady(), empty)
            self._open[model.digest] = period
        period.tally += tally
        self._open.move_to_end(model.digest)
        if period.tally.windows >= self._length.windows:
            out.append(self._end(model.digest, "windows"))
        while len(self._open) > MOST_MODELS:
            out.append(self._end(next(iter(self._open)), "room"))
        return out

    def due(self) -> list[DriftObserved]:
        """The periods whose time is over."""
        now, longest = self._steady(), self._length.seconds
        over = [digest for digest, p in self._open.items() if now - p.began >= longest]
        return [self._end(digest, "time") for digest in over]

    def stop(self) -> list[DriftObserved]:
        """All that run, at the process's end."""
        return [self._end(digest, "stop") for digest in list(self._open)]

    def _end(self, digest: str, why: EndedBy) -> DriftObserved:
        period = self._open.pop(digest)
        tally = period.tally
        bands = compare_bands(tally, period.manifest, self._bounds)
        scores = compare_scores(tally, period.manifest, self._bounds)
        finds = compare_finds(tally, period.manifest, self._bounds)
        # both by the clock as it is now: set meanwhile, it would have ended before it began
        ended = self._clock()
        lasted = timedelta(seconds=max(0.0, self._steady() - period.began))
        return DriftObserved(
            model=period.model,
            observer=self._observer,
            number=period.number,
            started=ended - lasted,
            ended=ended,
            ended_by=why,
            windows=tally.windows,
            windows_run=tally.run,
            windows_scored=tally.scored,
            bands=bands,
            scores=scores,
            finds=finds,
            bounds=self._bounds,
            verdict=worst([*bands, *(one for one in (scores, finds) if one)]),
        )
