"""``Idempotency-Key``: the same request sent again gets the answer of the first.

Kept in SQL. Only successful answers are kept: a request that failed may be tried again under its
key. While the first is under way, its row is a lease that it renews; whoever finds it expired takes it
over, and until when it lasts tells whose it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, delete, select, update

from frond.contracts.ids import digest
from frond.contracts.reasons import Reason
from frond.ingest.problems import Refused
from frond.ingest.readmodel.database import Database
from frond.ingest.readmodel.tables import idempotency
from frond.runtime import crash_point

_LEASE_S: Final = 30.0
_KEPT_S: Final = 30 * 24 * 3600.0
_i = idempotency.c


class Stored(NamedTuple):
    """The answer that the first request got."""

    fingerprint: str
    status: int
    location: str
    body: str


def check_key(key: str | None) -> None:
    """Raise Refused when this can be no Idempotency-Key."""
    if key is not None and not 0 < len(key) <= 255:
        raise Refused(Reason.BAD_REQUEST, "An Idempotency-Key has 1 to 255 characters.")


class Once:
    """One request under a key. Without a key, everything is let through and nothing kept."""

    def __init__(self, db: Database, scope: str, key: str | None) -> None:
        check_key(key)
        self.key = key
        self._db = db
        self._id = digest("idempotency", scope, key or "")
        self._leases: set[int] = set()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[Stored | None]:
        """Take the key for the length of the request; yields the first answer if there is one.

        Raises:
            Refused: CONFLICT with Retry-After: the first request is still under way.
        """
        if self.key is None:
            yield None
            return
        stored = await self._take()
        if stored is not None:
            yield stored
            return
        crash_point("ingest.turn-taken")
        renewing = asyncio.create_task(self._renew())
        try:
            yield None
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            # an answer that was kept stays; a request that failed leaves the key free, unless another
            # has taken it over
            async with self._db.write() as c:
                await c.execute(delete(idempotency).where(*self._is_mine()))

    def _is_mine(self) -> tuple[ColumnElement[bool], ...]:
        return _i.id == self._id, _i.status.is_(None), _i.locked_until.in_(self._leases)

    async def _take(self) -> Stored | None:
        now = _now()
        lease = now + int(_LEASE_S * 1000)
        async with self._db.write() as c:
            old = now - int(_KEPT_S * 1000)
            await c.execute(delete(idempotency).where(_i.created < old))
            insert = self._db.insert(idempotency).on_conflict_do_nothing()
            insert = insert.values(id=self._id, locked_until=lease, created=now)
            # told by a returned row: an insert's row count is not the same everywhere
            if (await c.execute(insert.returning(_i.id))).first() is not None:
                self._leases = {lease}
                return None
            row = (await c.execute(select(idempotency).where(_i.id == self._id))).one()
            if row.status is not None:
                return Stored(row.fingerprint, row.status, row.location or "", row.body or "")
            taken = await c.execute(
                update(idempotency)
                .where(_i.id == self._id, _i.locked_until < now)
                .values(locked_until=lease)
            )
            if taken.rowcount == 1:
                self._leases = {lease}
                return None
        raise Refused(
            Reason.CONFLICT,
            "The first request with this Idempotency-Key is still under way.",
            headers={"Retry-After": "2"},
        )

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_LEASE_S / 3)
            lease = _now() + int(_LEASE_S * 1000)
            # whoever is cancelled now does not know which of the two it has
            self._leases.add(lease)
            async with self._db.write() as c:
                renewed = await c.execute(
                    update(idempotency).where(*self._is_mine()).values(locked_until=lease)
                )
            if renewed.rowcount != 1:
                return
            self._leases = {lease}

    def same(self, stored: Stored, fingerprint: str) -> None:
        """Raise Refused (422) when this request is not the one that the key was used for."""
        if stored.fingerprint != fingerprint:
            raise Refused(
                Reason.CONFLICT,
                "This Idempotency-Key was used for another request. Use a new key.",
                status=422,
            )

    async def keep(self, fingerprint: str, status: int, location: str, body: str) -> None:
        """Remember the answer."""
        if self.key is None:
            return
        async with self._db.write() as c:
            await c.execute(
                update(idempotency)
                .where(_i.id == self._id)
                .values(fingerprint=fingerprint, status=status, location=location, body=body)
            )
        crash_point("ingest.answer-kept")


def _now() -> int:
    return int(time.time() * 1000)
