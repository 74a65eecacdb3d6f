"""Whether a process is alive, and whether it is ready for work."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from prometheus_client import Gauge

READY: Final = Gauge(
    "frond_ready", "Whether a part of the service is ready, as /ready tells: 1 or 0", ["part"]
)


class Health:
    """Named parts that must be ready, and a heartbeat that must go on.

    A part that was declared and never became ready keeps the service unready; a fatal message
    makes it unhealthy, and the process is about to exit.

    Attributes:
        was_ready: set once all parts were ready.
    """

    def __init__(self) -> None:
        self._parts: dict[str, str | None] = {}
        self.fatal: str | None = None
        self.started = time.monotonic()
        self.was_ready = asyncio.Event()

    def expect(self, part: str, why: str = "starting") -> None:
        """Declare a part that is not ready yet."""
        self.unready(part, why)

    def ready(self, part: str) -> None:
        self._parts[part] = None
        READY.labels(part).set(1)
        if not self.waiting_for:
            self.was_ready.set()

    def unready(self, part: str, why: str) -> None:
        self._parts[part] = why
        READY.labels(part).set(0)

    @property
    def waiting_for(self) -> dict[str, str]:
        """The parts that are not ready, and why; empty when all are."""
        return {part: why for part, why in self._parts.items() if why is not None}
