"""Snapshots of running jobs, at most so many a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from frond.bus import Outgoing
from frond.contracts import topics
from frond.contracts.errors import BrokerUnavailable
from frond.contracts.events import JobStatusChanged
from frond.runtime import crash_point, get_logger

EVERY_S: Final = 0.25
_log = get_logger(__name__)

Snapshot = Callable[[str], JobStatusChanged | None]
Send = Callable[[list[Outgoing]], Awaitable[object]]


class StatusBoard:
    """Remembers which jobs changed and publishes each one's newest snapshot, four times a second.

    Args:
        snapshot: a job's state of now; None once it has ended: its last word is said elsewhere.
        asleep: whether this process was, so that others may have said a job's last word.
    """

    def __init__(
        self, snapshot: Snapshot, send: Send, asleep: Callable[[], bool] = lambda: False
    ) -> None:
        self._snapshot = snapshot
        self._send = send
        self._asleep = asleep
        self._changed: set[str] = set()
        self._sending = asyncio.Lock()

    def changed(self, job_id: str) -> None:
        """A snapshot of this job is due."""
        self._changed.add(job_id)

    def forget(self) -> None:
        """Partitions have moved: whoever has a job now tells of it."""
        self._changed.clear()

    async def quiet(self, job_id: str) -> None:
        """From now on nothing of this job is sent, and nothing is under way."""
        self._changed.discard(job_id)
        async with self._sending:
            pass

    async def publish(self) -> None:
        """Send the snapshots that are due."""
        async with self._sending:
            if self._asleep():
                self.forget()
            due, self._changed = self._changed, set()
            found = [s for s in map(self._snapshot, sorted(due)) if s is not None]
            if not found:
                return
            try:
                await self._send([Outgoing(topics.STATUS, s) for s in found])
                crash_point("aggregator.snapshot-sent")
            except BrokerUnavailable as e:
                # a snapshot is worth nothing when the next one is near
                _log.warning("status was not published", error=str(e))
                self._changed |= due

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.publish()
