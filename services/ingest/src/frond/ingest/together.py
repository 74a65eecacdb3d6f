"""One question to the store for many who ask it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

_PATIENCE_S: Final = 2.0
"""For how long a question waits for the one before it: one that hangs keeps no others waiting."""


class Together:
    """Answers that were asked for after their askers came.

    Whoever comes while a question is under way shares the next one, which is asked when that one is
    answered, or takes too long: what an asker did before it asked, the answer has seen.
    """

    def __init__(self) -> None:
        self._under_way: dict[Hashable, asyncio.Future[Any]] = {}
        self._next: dict[Hashable, asyncio.Future[Any]] = {}

    async def ask(self, what: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer; raises what ``ask`` raises. Those who share one bring the same ``ask``."""
        answer = self._next.get(what)
        if answer is None:
            answer = self._next[what] = asyncio.ensure_future(self._in_turn(what, ask))
            # whoever waited for it may have been cancelled
            answer.add_done_callback(lambda a: a.cancelled() or a.exception())
        return cast(T, await asyncio.shield(answer))

    async def _in_turn(self, what: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        if (before := self._under_way.get(what)) is not None:
            await asyncio.wait({before}, timeout=_PATIENCE_S)
        mine = self._under_way[what] = self._next.pop(what)
        try:
            return await ask()
        finally:
            if self._under_way.get(what) is mine:
                del self._under_way[what]
