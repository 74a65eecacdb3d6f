"""Who runs beside whom: chunks take turns at the cores, and some are alone in the process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """How many go on at once is each one's own word: a model that is fastest with several runs at
    once has room for as many chunks, whose windows may be too few for that."""

    def __init__(self) -> None:
        self._going = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def of(self, most: int) -> AsyncIterator[None]:
        """Wait until fewer than ``most`` go on, and all that came before have begun."""
        mine = asyncio.get_running_loop().create_future()
        self._waiting.append((most, mine))
        self._call()
        try:
            await mine
            yield
        finally:
            if mine.done() and not mine.cancelled():
                self._going -= 1
            mine.cancel()
            self._call()

    def _call(self) -> None:
        while self._waiting:
            most, next_one = self._waiting[0]
            if not next_one.cancelled():
                if self._going >= most:
                    return
                self._going += 1
                next_one.set_result(None)
            self._waiting.popleft()


class Room:
    """Any number may be in it beside each other, or one alone; all enter in the order in which they came."""

    def __init__(self) -> None:
        self._door = asyncio.Lock()
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Be in it with others; wait while one is there alone, or waits for that."""
        async with self._door:
            self._inside += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait until the others have left; those that come meanwhile wait."""
        async with self._door:
            await self._empty.wait()
            yield
