"""Fixtures of the tests that go across services.

One installation of five services serves the tests of a module: starting it takes longer than most
of them. It has topics and a bucket of its own, and tests use job ids of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from frond.stack import Endpoints
from frond.stack import testing as stack_testing
from frond.store import ObjectStore
from support.services import Services, installation, open_store, prepare


@pytest.fixture(scope="module")
def frond(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """All five services, running and ready, with the blob model as default."""
    folder = tmp_path_factory.mktemp("services")
    prefix = stack_testing.new_prefix()
    with stack_testing.fresh_bucket(stack) as bucket:
        env = installation(
            stack, prefix, bucket, folder, FROND_RECONCILE_EVERY_S="2", FROND_STALL_S="10",
            # a busy machine's time to load a shadow, too
            FROND_SHADOW_TIMEOUT_S="240",
        )  # fmt: skip
        services = Services(env, folder)

        async def start() -> None:
            store = open_store(env)
            await prepare(env, store, folder / "blob")
            store.close()
            services.start()
            await services.ready()

        try:
            asyncio.run(start())
            yield services
        finally:
            services.close()
            stack_testing.delete_topics(stack.kafka_bootstrap, prefix)


@pytest.fixture
def store(frond: Services) -> Iterator[ObjectStore]:
    """The bucket of the installation that this test uses."""
    opened = open_store(frond.env)
    yield opened
    opened.close()


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
