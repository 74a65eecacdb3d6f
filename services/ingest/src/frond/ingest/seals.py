"""Which jobs' seals this process has sent lately: nothing in the read model says whether one was seen."""

from __future__ import annotations

import time
from typing import Final

_LATELY_S: Final = 1800.0
"""Whoever waits behind other jobs' images for hours is not sealed anew at each sweep."""
_MOST: Final = 50_000


class Seals:
    """Jobs whose seal is on its topic, or who need none. Those told first are forgotten first."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def told(self, job_id: str) -> None:
        self.forget(job_id)
        while len(self._told) >= _MOST:
            self._told.pop(next(iter(self._told)))
        self._told[job_id] = time.monotonic()

    def forget(self, job_id: str) -> None:
        self._told.pop(job_id, None)

    def told_lately(self, job_id: str) -> bool:
        at = self._told.get(job_id)
        return at is not None and time.monotonic() - at < _LATELY_S
