"""Whether this process was asleep: stopped by a debugger, a hypervisor, a machine out of memory.

Whoever wakes up may have lost its partitions long ago, and learns of it only with its next heartbeat.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 0.25


class Pulse:
    """Notes that time passes, and doubts for a while when much of it has passed at once.

    Args:
        session_s: after how long without heartbeats the broker gives our partitions away.
        clock: seconds that go on while the process is stopped.
    """

    def __init__(self, session_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._session_s = session_s
        self._clock = clock
        self._at = clock()
        self._trusted_at = self._at

    def beat(self) -> None:
        """Note that we are awake."""
        now = self._clock()
        if now - self._at > self._session_s:
            # two heartbeats from now we know whose the partitions are
            self._trusted_at = now + self._session_s / 2
        self._at = now

    def doubt_s(self) -> float:
        """For how many seconds from now nothing may be believed of what we own; 0 when awake."""
        self.beat()
        return max(0.0, self._trusted_at - self._at)

    async def sure(self) -> None:
        """Wait until there is no doubt."""
        while (wait_s := self.doubt_s()) > 0:  # noqa: ASYNC110 # it is time that is waited for
            await asyncio.sleep(wait_s)

    async def run(self) -> None:
        """Beat until cancelled: a process with nothing to do is not asleep."""
        while True:
            self.beat()
            await asyncio.sleep(EVERY_S)
