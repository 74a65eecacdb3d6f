"""Whether Faust gets on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from frond.bus.metrics import Lags
from frond.bus.offsets import Offsets, behind
from frond.contracts import topics
from frond.contracts.errors import BrokerUnavailable, FrondError
from frond.runtime import get_logger

_TOPICS: Final = (topics.DETECTED, topics.IMAGED)
_PATIENCE_S: Final = 90.0
_log = get_logger(__name__)


class FaustCrashed(FrondError):
    """Faust has ended by itself, or gets nowhere: nothing but a new process mends that."""


class Still:
    """For how long something stands still.

    Args:
        clock: seconds that go on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at: object = None
        self._since = clock()

    def seconds(self, at: object, *, need_not: bool = False) -> float:
        """For how long it has been where it is now.

        Args:
            need_not: it has no reason to move now: seconds count from here.
        """
        now = self._clock()
        if at != self._at or need_not:
            self._at, self._since = at, now
        return now - self._since


class Progress:
    """Whether the offsets of our partitions move while there is something to read.

    Args:
        assigned: this worker's partitions.
        busy: whether an event is in hand: long work is no standstill.
        recovered: up to where the tables' changelogs were read: nothing else is, while tables are
            recovered, and that may take as long as it gets on.

    Attributes:
        away: what is wrong with the broker, as of the last probe; anybody may read it.
    """

    def __init__(
        self,
        offsets: Offsets,
        group: str,
        prefix: str,
        *,
        stuck_s: float,
        assigned: Callable[[], Iterable[Any]],
        busy: Callable[[], bool],
        recovered: Callable[[], Mapping[Any, int]],
    ) -> None:
        self._offsets = offsets
        self._group = group
        self._prefix = prefix
        self._stuck_s = stuck_s
        self._assigned = assigned
        self._busy = busy
        self._recovered = recovered
        self._lags = Lags()
        self._still = Still()
        self._answered_at = time.monotonic()
        self.away: str | None = None

    async def probe(self) -> None:
        """Look once.

        Raises:
            FaustCrashed: behind the end, nothing in hand, and no offset moved for too long, nor was
                anything recovered.
            BrokerUnavailable: no answer for 90 s.
        """
        try:
            ends = await self._offsets.ends(_TOPICS)
            done = await self._offsets.done(self._group, _TOPICS)
        except BrokerUnavailable as e:
            _log.warning("the broker does not answer", error=repr(e))
            self.away = "the broker does not answer"
            if time.monotonic() - self._answered_at > _PATIENCE_S:
                raise
            return
        self._answered_at = time.monotonic()
        self.away = None
        assigned = {(p.topic, p.partition) for p in self._assigned()}
        mine = {p: end for p, end in ends.items() if (p.topic, p.partition) in assigned}
        self._lags.show({
            (p.topic.removeprefix(self._prefix), p.partition): end - done[p]
            for p, end in mine.items()
        })  # fmt: skip
        still = self._still.seconds(
            ({p: done[p] for p in mine}, dict(self._recovered())),
            need_not=self._busy() or not behind(mine, done),
        )
        if still > self._stuck_s:
            raise FaustCrashed(f"offsets have not moved for {still:.0f} s, behind the end")
