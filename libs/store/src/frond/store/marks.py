"""Marks: objects that say something by being there, and stay for as long as it matters."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final

from frond.store.client import ObjectStore

__all__ = ["Marks"]

_KEEP_S: Final = 2.0
_MOST: Final = 10_000


class Marks:
    """Whether marks are there, each asked of the store every few seconds until it is.

    Args:
        keep_s: for how long it is believed that a mark is not there.
        most: how many are remembered; of more, those that were asked for last.
    """

    def __init__(self, store: ObjectStore, keep_s: float = _KEEP_S, most: int = _MOST) -> None:
        self._store = store
        self._keep_s = keep_s
        self._most = most
        self._seen: OrderedDict[str, tuple[float, bool]] = OrderedDict()

    async def there(self, key: str) -> bool:
        """Whether the mark is there; may be ``keep_s`` late. Raises StoreUnavailable."""
        at, known = self._seen.get(key, (float("-inf"), False))
        if not known and time.monotonic() - at >= self._keep_s:
            asked = time.monotonic()
            known = await self._store.exists(key)
            self._learn(key, asked, known)
        return known

    def known(self, key: str) -> bool:
        """Whether this process has found the mark, or made it."""
        return self._seen.get(key, (0.0, False))[1]

    def made(self, key: str) -> None:
        """This process has just put the mark there."""
        self._learn(key, time.monotonic(), True)

    def _learn(self, key: str, asked: float, there: bool) -> None:
        # whoever asked before it was made is answered after
        self._seen[key] = (asked, there or self.known(key))
        self._seen.move_to_end(key)
        while len(self._seen) > self._most:
            self._seen.popitem(last=False)
