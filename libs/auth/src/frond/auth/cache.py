"""Keys' records as a process remembers them: for seconds, so that a revoked key is soon let go."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from frond.auth.keys import KeyRecord, KeyStore
from frond.contracts.errors import JobRejected, ObjectMissing
from frond.contracts.reasons import Reason

KEEP_S: Final = 5.0
"""The longest that a revoked key may still be good for, in a process that has seen it."""
_MOST_KNOWN: Final = 10_000
_MOST_UNKNOWN: Final = 1_000
_REFRESHES: Final = 8
_FIRST_LOOKS: Final = 4
MOST_WAITING: Final = 256
"""Ids that were not seen here before, and are looked up or wait for it, at once."""

_Kept = OrderedDict[str, tuple[float, KeyRecord | None]]


class KeyCache:
    """Looks keys up, each at most once in five seconds; ids that nobody has are remembered apart.

    So whoever tries ids pushes no real key out, never has more than a few of the store's threads,
    and keeps no key that was seen before waiting: those have threads of their own.
    """

    def __init__(self, keys: KeyStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock
        self._known: _Kept = OrderedDict()
        self._unknown: _Kept = OrderedDict()
        self._refreshing = asyncio.Semaphore(_REFRESHES)
        self._trying = asyncio.Semaphore(_FIRST_LOOKS)
        self._waiting = 0
        self._asking: dict[str, asyncio.Task[KeyRecord | None]] = {}

    async def get(self, key_id: str) -> KeyRecord | None:
        """The key's record, at most five seconds old; None where there is no such key.

        Raises:
            StoreUnavailable: an old record is no answer.
            JobRejected: UNAVAILABLE: too many ids that nobody has seen here wait already.
        """
        for kept in (self._known, self._unknown):
            at, record = kept.get(key_id, (-KEEP_S, None))
            if self._clock() - at < KEEP_S:
                return record
        asking = self._asking.get(key_id)
        if asking is None:
            first = key_id not in self._known
            if first and self._waiting >= MOST_WAITING:
                raise JobRejected(
                    Reason.UNAVAILABLE,
                    "More keys are sent here for the first time than can be looked up. Try again.",
                )
            self._waiting += first
            # one that is shared outlives whoever asked first
            slots = self._trying if first else self._refreshing
            asking = asyncio.create_task(self._look(key_id, slots))
            self._asking[key_id] = asking
            asking.add_done_callback(lambda task: self._done(key_id, task, first=first))
        return await asyncio.shield(asking)

    def _done(self, key_id: str, task: asyncio.Task[KeyRecord | None], *, first: bool) -> None:
        self._asking.pop(key_id, None)
        self._waiting -= first
        if not task.cancelled():
            task.exception()  # whoever asked has it, unless they have gone

    async def _look(self, key_id: str, slots: asyncio.Semaphore) -> KeyRecord | None:
        async with slots:
            # what is told is as old as the question
            at = self._clock()
            try:
                record: KeyRecord | None = await self._keys.get(key_id)
            except ObjectMissing:
                record = None
        kept, most = (
            (self._unknown, _MOST_UNKNOWN) if record is None else (self._known, _MOST_KNOWN)
        )
        other = self._known if record is None else self._unknown
        other.pop(key_id, None)
        kept[key_id] = (at, record)
        kept.move_to_end(key_id)
        while len(kept) > most:
            kept.popitem(last=False)
        return record
