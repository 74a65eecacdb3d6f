"""A trained model folder into the registry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from frond.client.objects import open_store
from frond.contracts import keys
from frond.contracts.errors import StoreUnavailable
from frond.contracts.jobs import ModelRef
from frond.models.registry import Registry, check_alias
from frond.models.session import ModelSession
from frond.training.progress import say

# before anything is trained somebody may sit there, and keys may be wrong; afterwards hours are at stake
_READY_S: Final = 5.0
_PUSH_S: Final = 600.0
_FIRST_S: Final = 0.2
_LONGEST_S: Final = 10.0

T = TypeVar("T")


def ready(alias: str) -> None:
    """Whether a push could be: better asked before hours of training.

    Raises: as :func:`push`, but for the model itself.
    """
    check_alias(alias)
    store = open_store()
    try:
        asyncio.run(_waited(lambda: store.exists(keys.MODELS), _READY_S))
    finally:
        store.close()


def push(folder: Path, alias: str, *, why: str) -> ModelRef:
    """Store the folder as an immutable version and point the alias at it.

    Raises:
        ModelRejected: it cannot be run, or the alias cannot be a name.
        StoreUnavailable: the object store does not answer, for minutes; it may be pushed again.
        FrondClientError: ``FROND_S3_…`` are not set.
    """
    # one that cannot run must not become what jobs are given
    ModelSession(folder)
    store = open_store()

    def pushed() -> Awaitable[ModelRef]:
        return Registry(store).push(folder, alias, who="frond train", why=why)

    try:
        return asyncio.run(_waited(pushed, _PUSH_S))
    finally:
        store.close()


async def _waited(call: Callable[[], Awaitable[T]], at_most: float) -> T:
    """Call until the store answers, as services do (``frond.runtime`` is none of training's), but not
    for ever. Raises StoreUnavailable."""
    pause, until = _FIRST_S, time.monotonic() + at_most
    told = False
    while True:
        try:
            return await call()
        except StoreUnavailable as e:
            if time.monotonic() + pause > until:
                raise
            if not told:
                say(f"The object store does not answer; waiting for {at_most:g} s at most. {e}")
            told = True
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_S)
