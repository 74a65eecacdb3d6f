"""Fixtures of the tests that go across services."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from frond.store import ObjectStore
from support.services import Services, open_store, prepare


@pytest.fixture
def store(service_env: dict[str, str]) -> Iterator[ObjectStore]:
    """This test's bucket."""
    opened = open_store(service_env)
    yield opened
    opened.close()


@pytest.fixture
async def frond(
    service_env: dict[str, str], store: ObjectStore, tmp_path: Path
) -> AsyncIterator[Services]:
    """All five services, running and ready, with the blob model as default."""
    env = {
        **service_env,
        "FROND_DEFAULT_MODEL": "blob",
        "FROND_API_KEY": "test-key",
        "DATABASE_PATH": str(tmp_path / "ingest.db"),
        "FROND_CACHE_DIR": str(tmp_path / "cache"),
        "FROND_RECONCILE_EVERY_S": "2",
        "FROND_STALL_S": "10",
    }
    await prepare(env, store, tmp_path / "blobs")
    services = Services(env, tmp_path)
    services.start()
    try:
        await services.ready()
        yield services
    finally:
        services.close()


@pytest.fixture
def make_services(tmp_path: Path) -> Iterator[Any]:
    """Services of further installations: ``make_services(env, name)``."""
    made: list[Services] = []

    def make(env: dict[str, str], name: str) -> Services:
        logs = tmp_path / name
        logs.mkdir()
        made.append(Services(env, logs))
        return made[-1]

    yield make
    for services in made:
        services.close()
