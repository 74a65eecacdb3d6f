"""Limits a key: requests a second are refused above it, bytes a second are paced.

Bodies are paced and not refused: a flight's images are larger than any bucket, and a sender whose
bytes are taken more slowly needs to know nothing of it. What goes past here is counted apart: it lets
no further bodies begin for as long as it takes, and slows nothing that comes in. Counts are a process's
own.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason

_MOST: Final = 10_000
_PATIENCE_S: Final = 30.0
_BURST_S: Final = 2.0
_LEAST_BURST: Final = 5.0
_STEP: Final = 64 << 10


class Throttled(JobRejected):
    """Too much at once. ``retry_after``: whole seconds until it may be tried again."""

    def __init__(self, detail: str, retry_after: float) -> None:
        super().__init__(Reason.RATE_LIMITED, detail)
        self.retry_after = max(1, math.ceil(retry_after))


@dataclass(slots=True)
class Bucket:
    """Tokens that come at a rate and can be overdrawn; what is missing is time to wait."""

    rate: float
    burst: float
    level: float
    at: float

    def behind(self, now: float) -> float:
        """Seconds until nothing is overdrawn."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        return max(0.0, -self.level / self.rate)

    def take(self, count: float, now: float) -> float:
        """Take tokens; returns how long to wait until they are there."""
        self.behind(now)
        self.level -= count
        return max(0.0, -self.level / self.rate)


class _Buckets:
    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._kept: OrderedDict[str, Bucket] = OrderedDict()

    def of(self, subject: str, now: float) -> Bucket:
        bucket = self._kept.get(subject)
        if bucket is None:
            bucket = self._kept[subject] = Bucket(self.rate, self.burst, self.burst, now)
        self._kept.move_to_end(subject)
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        return bucket


class Rates:
    """The rates of one process; a rate of 0 is no limit."""

    def __init__(
        self,
        request_rate: float,
        upload_rate: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._requests = _Buckets(request_rate, max(_LEAST_BURST, _BURST_S * request_rate))
        self._bytes = _Buckets(upload_rate, max(_STEP, upload_rate))
        self._promised = _Buckets(upload_rate, max(_STEP, upload_rate))
        self._clock = clock
        self._sleep = sleep

    def admit(self, subject: str) -> None:
        """Count a request. Raises Throttled when there are too many of them."""
        if not self._requests.rate:
            return
        now = self._clock()
        bucket = self._requests.of(subject, now)
        wait = bucket.take(1, now)
        if wait:
            bucket.level += 1  # what is refused costs nothing
            raise Throttled(
                f"Your key may send {self._requests.rate:g} requests a second here "
                "(FROND_REQUEST_RATE). Wait as Retry-After says.",
                wait,
            )

    def admit_body(self, subject: str) -> None:
        """Before the bytes of rasters or of a model come. Raises Throttled when the key's are far behind."""
        if not self._bytes.rate:
            return
        now = self._clock()
        behind = max(b.of(subject, now).behind(now) for b in (self._bytes, self._promised))
        if behind > _PATIENCE_S:
            raise Throttled(
                f"Your key may send {self._bytes.rate:g} bytes a second here (FROND_UPLOAD_RATE), "
                "and more than that is under way. Wait as Retry-After says.",
                behind - _PATIENCE_S,
            )

    def charge(self, subject: str, count: int, within_s: float) -> None:
        """Count bytes that do not pass through here, and come within so many seconds or not at all: with
        what was counted before, no more than come at the rate in that time."""
        if self._promised.rate:
            now = self._clock()
            bucket = self._promised.of(subject, now)
            room = (within_s - bucket.behind(now)) * bucket.rate
            bucket.take(min(count, max(0.0, room)), now)

    async def pace(self, subject: str, count: int) -> None:
        """Count bytes that came, and wait until more may come."""
        if self._bytes.rate and count:
            now = self._clock()
            wait = self._bytes.of(subject, now).take(count, now)
            if wait:
                await self._sleep(wait)
