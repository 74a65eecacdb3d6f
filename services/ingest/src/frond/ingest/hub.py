"""Waking event streams of this process when their job's rows have changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator

from frond.ingest import metrics


class Hub:
    """Who waits for which job. A wake-up carries nothing: the waiter reads the database."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self.closing = False
        self.caught_up = False
        """Whether the rows have had all that was on the topics when the read model began."""

    @contextlib.contextmanager
    def watching(self, job_id: str) -> Iterator[asyncio.Event]:
        """An asyncio event that is set at each change of the job; the waiter clears it."""
        bell = asyncio.Event()
        self._waiting.setdefault(job_id, set()).add(bell)
        try:
            yield bell
        finally:
            bells = self._waiting[job_id]
            bells.discard(bell)
            if not bells:
                del self._waiting[job_id]

    def changed(self, job_ids: Iterable[str]) -> None:
        """Wake those who wait for these jobs."""
        for job_id in job_ids:
            for bell in self._waiting.get(job_id, ()):
                bell.set()

    def applied(self, job_ids: Iterable[str], events: int) -> None:
        """Events were applied to the rows of these jobs: count them, wake those who wait."""
        metrics.EVENTS.inc(events)
        self.changed(job_ids)

    def reached(self) -> None:
        """From now on what the rows lack was not on the topics, or has just come."""
        self.caught_up = True

    def close(self) -> None:
        """Wake everybody: the service stops and streams must end."""
        self.closing = True
        self.changed(list(self._waiting))
