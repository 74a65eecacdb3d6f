"""Many events of drift as one history a model: added up over processes, in equal steps of time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frond.contracts.drift import Compared, DriftBounds, DriftVerdict
from frond.contracts.events import DriftObserved
from frond.contracts.jobs import ModelRef
from frond.drift.naming import FINDS, parts_of
from frond.drift.verdicts import compare, judge_finds, worst

STEPS: Final = 96
_SHORTEST: Final = timedelta(minutes=1)


@dataclass(slots=True)
class _Sum:
    """Counts of one band, or of scores."""

    live: NDArray[np.int64]
    observed: int = 0

    def add(self, one: Compared) -> None:
        live = np.asarray(one.live, np.int64)
        # another version may count in other bins; both fit into the bins of their common divisor
        bins = math.gcd(len(self.live), len(live))
        self.live = _in_bins(self.live, bins) + _in_bins(live, bins)
        self.observed += one.observed


@dataclass(slots=True)
class Step:
    """What ended within a step of time."""

    windows: int = 0
    run: int = 0
    parts: dict[str, _Sum] = field(default_factory=dict)

    def add(self, event: DriftObserved) -> None:
        self.windows += event.windows
        self.run += event.windows_run
        for name, one in parts_of(event):
            known = self.parts.get(name)
            if known is None:
                known = self.parts[name] = _Sum(np.zeros(len(one.live), np.int64))
            known.add(one)


@dataclass(slots=True)
class ModelHistory:
    """One version's windows.

    Attributes:
        newest: the event that ended last: its bounds are judged by.
        steps: by number, those in which something ended.
        known: by part, the newest event's figures that had a reference of it: not every period has
            scores, and that one has none does not undo what others had.
    """

    model: ModelRef
    newest: DriftObserved
    periods: int = 0
    whole: Step = field(default_factory=Step)
    steps: dict[int, Step] = field(default_factory=dict)
    known: dict[str, tuple[tuple[datetime, str], Compared]] = field(default_factory=dict)

    def add(self, event: DriftObserved, step: int) -> None:
        """Count an event that ended in this step."""
        at = _order(event)
        if at >= _order(self.newest):
            self.newest = event
        for name, one in parts_of(event):
            if one.reference is not None and (name not in self.known or at > self.known[name][0]):
                self.known[name] = (at, one)
        self.periods += 1
        self.whole.add(event)
        self.steps.setdefault(step, Step()).add(event)

    def judged(self, step: Step) -> dict[str, Compared]:
        """The figures of a step's bands and scores, or of the whole."""
        told = {}
        for name, one in step.parts.items():
            _, beside = self.known.get(name, (None, None))
            reference, against, live = None, 0, one.live
            if beside is not None and beside.reference is not None:
                reference, against = beside.reference, beside.observed_reference
                live = _in_bins(live, math.gcd(len(live), len(reference)))
            judge = judge_finds if name == FINDS else compare
            told[name] = judge(live.tolist(), reference, (one.observed, against), self.bounds)
        return told

    def verdict(self, step: Step) -> DriftVerdict:
        """The most serious one of a step's."""
        return worst(tuple(self.judged(step).values()))

    def recent(self) -> Step:
        """The newest step of which something can be said; of a whole week, a bad day is a small part."""
        newest = [self.steps[n] for n in sorted(self.steps, reverse=True)]
        judged = (s for s in newest if self.verdict(s) is not DriftVerdict.UNKNOWN)
        return next(judged, newest[0])

    @property
    def bounds(self) -> DriftBounds:
        return self.newest.bounds


class History:
    """Events between two moments, in any order, each counted once however often it comes. Memory
    grows with models, bands and steps, and by a name an event.

    Args:
        since, until: of the ends of periods.
    """

    def __init__(self, since: datetime, until: datetime) -> None:
        self.since = since
        self.until = until
        self.step = max((until - since) / STEPS, _SHORTEST)
        self._models: dict[str, ModelHistory] = {}
        self._seen: set[str] = set()

    def add(self, event: DriftObserved) -> bool:
        """Count an event; False where it is of another time, or was counted before."""
        if not self.since <= event.ended <= self.until or event.event_id in self._seen:
            return False
        self._seen.add(event.event_id)
        one = self._models.get(event.model.digest)
        if one is None:
            one = self._models[event.model.digest] = ModelHistory(event.model, event)
        one.add(event, int((event.ended - self.since) / self.step))
        return True

    def models(self) -> list[ModelHistory]:
        """By name; of one name, the version that was seen last comes first."""
        newest = sorted(self._models.values(), key=lambda m: m.newest.ended, reverse=True)
        return sorted(newest, key=lambda m: m.model.name)

    def steps(self, model: ModelHistory) -> Iterator[tuple[datetime, Step]]:
        """A model's steps in order of time, with when each began."""
        for number in sorted(model.steps):
            yield self.since + number * self.step, model.steps[number]


def _in_bins(counts: NDArray[np.int64], bins: int) -> NDArray[np.int64]:
    made: NDArray[np.int64] = counts.reshape(bins, -1).sum(axis=1)
    return made


def _order(event: DriftObserved) -> tuple[datetime, str]:
    # of those that ended at once the same one, in whatever order they come
    return event.ended, event.event_id
