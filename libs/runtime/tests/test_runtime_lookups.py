"""Names whose servers are silent: they cost their tenant look-ups, and nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from frond.runtime.lookups import Lookups


class Resolver:
    """Answers at once; of silent names, once ``over`` is set."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.over = threading.Event()

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        if "silent" in host:
            self.begun.release()
            self.over.wait(60)
        return [(None, None, None, "", ("93.184.215.14", port))]


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    made = Resolver()
    yield made
    made.over.set()


async def left(lookups: Lookups, resolver: Resolver) -> None:
    """A tenant's silent name has its thread, and is waited for by nobody any more."""
    asked = asyncio.create_task(lookups.ask("silent.example", 80, "mallory"))
    assert await asyncio.to_thread(resolver.begun.acquire, timeout=60)
    asked.cancel()
    await asyncio.wait({asked})


async def test_one_tenants_silent_names_hold_up_nobody_else(resolver: Resolver) -> None:
    """Though nobody waits for them any more, they hold their threads: a tenant's share, of those for
    look-ups alone. Once they have ended, the tenant has all of its share again."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    lookups = Lookups(3, 2, resolver)
    for _ in range(2):
        await left(lookups, resolver)
    with pytest.raises(OSError, match="too many names"):
        await lookups.ask("up.example", 80, "mallory")
    async with asyncio.timeout(20):
        assert await lookups.ask("up.example", 80, "acme") == ["93.184.215.14"]
        assert await lookups.ask("up.example", 80, None) == ["93.184.215.14"]
        assert await asyncio.to_thread(lambda: "free")
        resolver.over.set()
        while lookups._running:  # noqa: ASYNC110 # threads tell nobody that they have ended
            await asyncio.sleep(0.01)
        await asyncio.gather(*(lookups.ask("silent.example", 80, "mallory") for _ in range(2)))


async def test_one_that_waits_for_a_thread_is_given_up_with_who_waited(resolver: Resolver) -> None:
    """It counts no more, and is not looked up later."""
    lookups = Lookups(1, 2, resolver)
    await left(lookups, resolver)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(lookups.ask("silent.example", 80, "mallory"), 0.05)
    assert lookups._running == {"mallory": 1}


async def test_the_systems_resolver_is_asked() -> None:
    """Its order is kept, and each address comes once."""
    assert await Lookups().ask("127.1", 80, None) == ["127.0.0.1"]
