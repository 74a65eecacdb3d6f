"""A trained model folder into the registry."""

from __future__ import annotations

import asyncio
from pathlib import Path

from frond.client.objects import open_store
from frond.contracts import keys
from frond.contracts.jobs import ModelRef
from frond.models.registry import Registry, check_alias
from frond.models.session import ModelSession


def ready(alias: str) -> None:
    """Whether a push could be: better asked before hours of training.

    Raises: as :func:`push`, but for the model itself.
    """
    check_alias(alias)
    store = open_store()
    try:
        asyncio.run(store.exists(keys.MODELS))
    finally:
        store.close()


def push(folder: Path, alias: str, *, why: str) -> ModelRef:
    """Store the folder as an immutable version and point the alias at it.

    Raises:
        ModelRejected: it cannot be run, or the alias cannot be a name.
        StoreUnavailable: the object store does not answer.
        FrondClientError: ``FROND_S3_…`` are not set.
    """
    # one that cannot run must not become what jobs are given
    ModelSession(folder)
    store = open_store()

    async def pushed() -> ModelRef:
        return await Registry(store).push(folder, alias, who="frond train", why=why)

    try:
        return asyncio.run(pushed())
    finally:
        store.close()
