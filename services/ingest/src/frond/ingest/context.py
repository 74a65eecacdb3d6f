"""What the parts of ingest share: settings, the store, the producer, SQL, the model registry."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, cast

from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.requests import HTTPConnection

from frond.auth import AtOnce, Bodies, Gate, Rates
from frond.bus import EventProducer, ensure_topics
from frond.contracts.errors import BrokerUnavailable, DatabaseUnavailable
from frond.contracts.jobs import JobSpec
from frond.ingest.hub import Hub
from frond.ingest.readmodel.database import Database
from frond.ingest.seals import Seals
from frond.ingest.settings import IngestSettings
from frond.ingest.together import Together
from frond.models.registry import Registry
from frond.models.trainings import Trainings
from frond.runtime import Health, Service, get_logger, wait_out
from frond.store import Listed, ObjectStore, StoreSettings
from frond.store.client import Stat

SOURCE: Final = "/frond/ingest"
_KNOCK_S: Final = 2.0
_LOOK_EVERY_S: Final = 10.0
_AWAY_S: Final = 20.0
_LATELY_S: Final = 0.25
_LATELY: Final = 1000
T = TypeVar("T")
_log = get_logger(__name__)


@dataclass(slots=True)
class Place:
    """A place in a job that requests with one name hold.

    ``kept``: its name is claimed. ``unsure``: nobody knows whether it is. ``lost``: it was given up,
    since the job was given a size that it does not fit in; it is not counted.
    """

    requests: int = 0
    kept: bool = False
    lost: bool = False
    unsure: bool = False


@dataclass(eq=False, slots=True)
class Look:
    """Somebody looks which names of a job are claimed. ``left``: those that were let go since."""

    left: set[str] = field(default_factory=set)


class Ingest:
    """One process's connections. Making it connects to nothing."""

    def __init__(self, settings: IngestSettings) -> None:
        self.settings = settings
        self.egress = settings.egress
        self.store = ObjectStore(
            StoreSettings(
                settings.s3_endpoint, settings.s3_access_key,
                settings.s3_secret_key.get_secret_value(), settings.s3_bucket, settings.s3_region,
            )
        )  # fmt: skip
        self.gate = Gate(settings, self.store, _log.warning)
        self.rates = Rates(settings.request_rate, settings.upload_rate)
        self.bodies = Bodies(settings.bodies_at_once, settings.body_silence_s)
        self.streams = AtOnce(
            settings.streams_at_once, "event streams", "FROND_STREAMS_AT_ONCE", 15
        )
        self.beginning: dict[str | None, int] = {}
        """How many jobs of a tenant this process is making right now."""
        self.admitting = asyncio.Lock()
        """Held while a tenant's open jobs are counted and one more is let in."""
        self.producer = EventProducer(settings.kafka_bootstrap, settings.topic_prefix, SOURCE)
        self.db = Database(settings.database)
        self.registry = Registry(self.store, default_model=settings.default_model)
        self.hub = Hub()
        self.tasks: set[asyncio.Task[None]] = set()
        self.specs: dict[str, JobSpec] = {}
        """Pinned settings that were read lately; they never change."""
        self.counts: dict[str, int] = {}
        """How many names are claimed in the open jobs that this process has seen."""
        self.coming: dict[tuple[str, str], Place] = {}
        """Names of jobs' images that requests are bringing to this process right now."""
        self.looking: dict[str, set[Look]] = {}
        """Who looks at the names of which job right now."""
        self.pushing = asyncio.Lock()
        """Held while a model is taken in."""
        self.counting = asyncio.Lock()
        """Held while a job's claims are counted, and while one that was kept is taken away."""
        self.listing: set[str] = set()
        """Jobs whose prefix this process is listing right now."""
        self.seals = Seals()
        self.together = Together()
        self._lately: dict[Hashable, tuple[float, Any]] = {}
        self._preparing = asyncio.Lock()
        self._migrated = False

    @property
    def trainings(self) -> Trainings:
        """The training runs in the store."""
        return Trainings(self.store)

    async def prepared(self) -> None:
        """The schema is migrated; what calls this first does it."""
        async with self._preparing:
            if not self._migrated:
                await wait_out(self._migrate, what="migrating the database")
                self._migrated = True

    async def _migrate(self) -> None:
        try:
            await self.db.migrate()
        except (OperationalError, InterfaceError) as e:
            # waited out like any other outage
            raise DatabaseUnavailable(str(e)) from e

    async def lately(self, what: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, or the one of a quarter of a second ago: for what a thousand requests ask one
        after the other, and what is looked at again before anything depends on it."""
        found = self._lately.get(what)
        if found is not None and time.monotonic() - found[0] < _LATELY_S:
            return cast(T, found[1])
        asked = time.monotonic()
        answer = await ask()
        self.learned(what, answer, asked)
        return answer

    def learned(self, what: Hashable, answer: Any, asked: float | None = None) -> None:
        """What :meth:`lately` answers from now on, unless more was learned since it was asked."""
        at = time.monotonic() if asked is None else asked
        if what in self._lately and self._lately[what][0] > at:
            return
        if len(self._lately) >= _LATELY:
            self._lately.clear()
        self._lately[what] = at, answer

    async def require_broker(self) -> None:
        """Raise BrokerUnavailable when Kafka takes no connection: before work is accepted.

        Work that was accepted when Kafka went away is sent later, by the sweeper.
        """
        # once for all who come at once
        await self.together.ask("broker", self._knock)

    async def _knock(self) -> None:
        for address in self.settings.kafka_bootstrap.split(","):
            host, _, port = address.strip().rpartition(":")
            try:
                async with asyncio.timeout(_KNOCK_S):
                    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            except (OSError, TimeoutError, ValueError):
                continue
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return
        raise BrokerUnavailable(self.settings.kafka_bootstrap)

    def spawn(self, work: asyncio.Task[None]) -> None:
        """Keep a background task alive until it ends or the service does."""
        self.tasks.add(work)
        work.add_done_callback(self.tasks.discard)

    async def close(self) -> None:
        """Leave in order; what is under way is taken up again by the sweeper."""
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.producer.stop()
        await self.db.close()
        self.store.close()


def age(found: Listed | Stat) -> float:
    """Seconds since an object was written."""
    if found.last_modified is None:
        return float("inf")
    return (datetime.now(UTC) - found.last_modified).total_seconds()


def ingest_of(connection: HTTPConnection) -> Ingest:
    """The Ingest that serves this request."""
    return cast(Ingest, connection.app.state.ingest)


async def keep_connected(service: Service, ingest: Ingest) -> None:
    """Make the bucket and the topics, connect the producer; then look after the store, to the end."""
    settings = ingest.settings
    service.health.expect("store", "making the bucket")
    service.health.expect("broker", "making the topics")

    async def connect() -> None:
        await wait_out(ingest.store.ensure_bucket, what="making the bucket")
        service.health.ready("store")
        await wait_out(
            lambda: ensure_topics(
                settings.kafka_bootstrap,
                settings.topic_prefix,
                replication_factor=settings.replication_factor,
            ),
            what="making the topics",
        )
        await wait_out(ingest.producer.start, what="connecting the producer")
        service.health.ready("broker")
        await watch_store(service.health, ingest.store)

    connecting = asyncio.create_task(connect())
    stopping = asyncio.create_task(service.stop.wait())
    await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if connecting.done():
        connecting.result()
    else:
        connecting.cancel()
    await stopping
    ingest.hub.close()


async def watch_store(
    health: Health,
    store: ObjectStore,
    *,
    every_s: float = _LOOK_EVERY_S,
    patience_s: float = _AWAY_S,
) -> None:
    """Not to be ready while the store is away, does not answer or has lost the bucket; for ever.

    The other services' work waits, and their doing so is counted. Requests do not wait: without this,
    nobody would be told of a door that turns all of them away, but those who come.

    Args:
        patience_s: how long the store may take; a restart is no reason to send clients elsewhere.
    """
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(every_s)
        # a store that hangs does not refuse for a minute
        late = loop.call_later(
            patience_s, health.unready, "store", "the object store does not answer"
        )
        try:
            there = await wait_out(store.has_bucket, what="looking for the bucket")
        finally:
            late.cancel()
        if there:
            health.ready("store")
        else:
            # a new one would hide that everything is gone
            health.unready("store", f"the object store has no bucket {store.bucket}")
