"""Crash points, armed from outside: tokens laid out, and deaths counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from chaos.world import World
from frond.runtime.crashpoints import FIRED

_LOOK_S: Final = 0.3


class Armed:
    """The points of a world's installation."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.folder = world.installation.crash_points

    async def fire(self, point: str, times: int, within: float) -> None:
        """Arm a point so many times, and wait until so many have died of it.

        Raises:
            AssertionError: they have not within the time.
        """
        tokens = [f"{point}.{n}" for n in range(1, times + 1)]
        for token in tokens:
            (self.folder / token).touch()
        counted = 0
        end = time.monotonic() + within
        while counted < times:
            if time.monotonic() > end:
                for token in tokens:
                    (self.folder / token).unlink(missing_ok=True)
                raise AssertionError(
                    f"crash point {point} fired {counted} times of {times} in {within:.0f} s"
                )
            # a process that kills itself tells nobody where
            await asyncio.sleep(_LOOK_S)
            fired = sum((self.folder / FIRED / t).exists() for t in tokens)
            for _ in range(fired - counted):
                self._count(point)
            counted = fired

    async def once(self, point: str) -> Callable[[], bool]:
        """One more token of a point besides those of its own turn; the result tells whether it fired."""
        token = f"{point}.9{time.monotonic_ns()}"
        (self.folder / token).touch()

        def fired() -> bool:
            if (self.folder / FIRED / token).exists():
                self._count(point)
                return True
            (self.folder / token).unlink(missing_ok=True)
            return False

        return fired

    def fired(self, point: str) -> int:
        """How often a point has fired."""
        return self.world.figures.points[point]

    async def fires(self, point: str, more: int = 1, within: float = 15) -> None:
        """Wait until a point has fired again, or the time is over."""
        wanted, end = self.fired(point) + more, time.monotonic() + within
        while self.fired(point) < wanted and time.monotonic() < end:
            await self.world.watch.any_change(_LOOK_S)

    def _count(self, point: str) -> None:
        figures = self.world.figures
        figures.kills += 1
        figures.killed[point.partition(".")[0]] += 1
        figures.points[point] += 1
        self.world.oracle.note("kill", point=point)
