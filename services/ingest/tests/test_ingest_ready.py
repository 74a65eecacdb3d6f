"""Whether a door that cannot reach its store says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from frond.contracts.errors import StoreUnavailable
from frond.ingest.context import watch_store
from frond.runtime import Health


class Store:
    """``away``: it refuses. ``there``, while it is clear: it does not answer. ``lost``: the bucket is."""

    bucket = "frond"

    def __init__(self) -> None:
        self.away = self.lost = False
        self.there = asyncio.Event()
        self.there.set()
        self.refused = 0

    async def has_bucket(self) -> bool:
        await self.there.wait()
        if self.away:
            self.refused += 1
            raise StoreUnavailable("no route")
        return not self.lost


@asynccontextmanager
async def watched(store: Store, patience_s: float) -> AsyncIterator[Health]:
    health = Health()
    health.ready("store")
    watching = asyncio.create_task(
        watch_store(health, cast(Any, store), every_s=0.01, patience_s=patience_s)
    )
    yield health
    watching.cancel()


async def comes(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 # nobody is told
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_door_without_its_store_is_not_ready(hangs: bool) -> None:
    """Whoever chooses among doors, or is paged, is told; and again when the store is back."""
    store = Store()
    async with watched(store, 0.1) as health:
        store.away = not hangs
        if hangs:
            store.there.clear()
        await comes(lambda: bool(health.waiting_for))
        assert health.waiting_for == {"store": "the object store does not answer"}
        store.away = False
        store.there.set()
        await comes(lambda: not health.waiting_for)


async def test_a_restart_of_the_store_sends_nobody_elsewhere() -> None:
    """All doors would leave at once, for what is over in seconds."""
    store = Store()
    store.away = True
    async with watched(store, 30) as health:
        await comes(lambda: store.refused >= 3)
        assert not health.waiting_for


async def test_a_lost_bucket_is_told() -> None:
    """All rasters and results are gone; a look makes no empty one in its place."""
    store = Store()
    store.lost = True
    async with watched(store, 30) as health:
        await comes(lambda: bool(health.waiting_for))
        assert health.waiting_for == {"store": "the object store has no bucket frond"}
        store.lost = False
        await comes(lambda: not health.waiting_for)
