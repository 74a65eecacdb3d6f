"""Whose turn it is under an ``Idempotency-Key``, and for how long. By a clock of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from frond.ingest import idempotency
from frond.ingest.idempotency import Once
from frond.ingest.problems import Refused
from frond.ingest.readmodel.database import Database

LEASE_S, KEPT_S = 30, 30 * 24 * 3600


class Now:
    """What time it is, in milliseconds."""

    ms = 1_800_000_000_000

    def __call__(self) -> int:
        return self.ms

    def forward(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    made = Now()
    monkeypatch.setattr(idempotency, "_now", made)
    return made


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")
    await made.migrate()
    yield made
    await made.close()


async def under_way(db: Database) -> bool:
    """Whether another request with the key is told to wait."""
    with contextlib.suppress(Refused):
        async with Once(db, "s", "k").turn():
            return False
    return True


async def test_the_key_of_a_dead_process_is_free_once_its_lease_ends(
    db: Database, now: Now
) -> None:
    """Not before: it may be alive."""
    assert await Once(db, "s", "k")._take() is None
    now.forward(LEASE_S)
    assert await under_way(db)
    now.forward(0.001)
    assert not await under_way(db)


async def test_a_request_that_takes_longer_than_a_lease_keeps_its_key(
    db: Database, now: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is renewed for as long as the request is under way, and free when it has failed."""
    monkeypatch.setattr(idempotency, "_LEASE_S", 0.03)
    once = Once(db, "s", "k")
    async with once.turn(), asyncio.timeout(60):
        for _ in range(3):
            now.forward(0.02)
            while max(once._leases) < now.ms + 30:  # noqa: ASYNC110 # nobody tells
                await asyncio.sleep(0.001)
            assert await under_way(db)
    assert not await under_way(db)


@pytest.mark.parametrize("renews", [False, True])
async def test_a_zombie_leaves_its_successors_key_alone(
    db: Database, now: Now, monkeypatch: pytest.MonkeyPatch, renews: bool
) -> None:
    """Whether it fails at once when it wakes, or goes on and would renew."""
    zombie, successor = Once(db, "s", "k"), Once(db, "s", "k")
    with pytest.raises(ZeroDivisionError):
        async with zombie.turn():
            now.forward(LEASE_S + 1)
            assert await successor._take() is None
            if renews:
                monkeypatch.setattr(idempotency, "_LEASE_S", 0.03)
                await asyncio.wait_for(zombie._renew(), 10)
            raise ZeroDivisionError
    assert await under_way(db)


async def test_an_answer_is_forgotten_after_its_time(db: Database, now: Now) -> None:
    """Until then every request gets it."""
    once = Once(db, "s", "k")
    async with once.turn():
        await once.keep("f", 201, "/jobs/j", "{}")
    now.forward(KEPT_S)
    async with Once(db, "s", "k").turn() as stored:
        assert stored == ("f", 201, "/jobs/j", "{}")
    now.forward(0.001)
    async with Once(db, "s", "k").turn() as stored:
        assert stored is None
