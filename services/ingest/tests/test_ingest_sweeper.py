"""What a sweep sends of one job, and what it asks for: a topic that keeps what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from ingest_inside import an_ingest

from frond.bus import Outgoing
from frond.contracts import keys
from frond.contracts.envelope import new_traceparent
from frond.contracts.errors import BrokerUnavailable
from frond.contracts.events import Event, JobSealed, JobStatusChanged
from frond.contracts.jobs import ImageCounts, JobSpec, JobStatus, ModelRef
from frond.ingest import desk, sweeper
from frond.ingest.context import Ingest
from frond.ingest.readmodel import queries, tables
from frond.ingest.readmodel.apply import CONTESTED
from frond.ingest.readmodel.rows import JobRow
from frond.ingest.sweeper import sweep_job
from frond.runtime import Service
from frond.stack import Endpoints
from frond.store import ObjectStore, StoreSettings

pytestmark = pytest.mark.stack
SEALED = JobSealed(job_id="j", job_size=1)


class Topic:
    """Keeps what is sent; ``away``: it takes nothing."""

    away = False

    def __init__(self) -> None:
        self.sent: list[Event] = []

    async def send(self, out: Outgoing | Sequence[Outgoing], *, traceparent: str) -> None:
        if self.away:
            raise BrokerUnavailable("away")
        self.sent += [o.event for o in ([out] if isinstance(out, Outgoing) else out)]

    async def stop(self) -> None:
        pass


@pytest.fixture
async def ingest(stack: Endpoints, bucket: str, tmp_path: Path) -> AsyncIterator[Ingest]:
    store = ObjectStore(
        StoreSettings(stack.s3_endpoint, stack.access_key, stack.secret_key, bucket)
    )
    made = await an_ingest(store, tmp_path / "a.db")
    made.producer = cast(Any, Topic())
    yield made
    await made.close()
    store.close()


def topic(ingest: Ingest) -> Topic:
    return cast(Topic, ingest.producer)


async def shown(ingest: Ingest, told: int | None = None) -> None:
    """A job of one image, which was seen, and a snapshot in which its size is as told."""
    snapshot = JobStatusChanged(
        job_id="j", status=JobStatus.RUNNING, images=ImageCounts(expected=told),
        updated=datetime.now(UTC),
    )  # fmt: skip
    row = JobRow("j", 1, 1, expected=1, seen=1, snapshot=snapshot.model_dump_json())
    async with ingest.db.write() as c:
        await c.execute(ingest.db.upsert(tables.jobs), [asdict(row)])


async def sweeps(ingest: Ingest, times: int = 1) -> Sequence[Event]:
    """What so many sweeps of the job have sent."""
    topic(ingest).sent.clear()
    for _ in range(times):
        assert await sweep_job(ingest, "j") == 0
    return list(topic(ingest).sent)


async def test_a_seal_that_kafka_missed_is_sent_once_it_is_back(ingest: Ingest) -> None:
    """Though the job's images are all there and some have finished: the aggregator says that it does
    not know the size. One sweep sends it, those after it do not."""
    topic(ingest).away = True
    await desk.seal(ingest, "j", 1, new_traceparent())
    await shown(ingest)
    assert await sweeps(ingest) == []
    topic(ingest).away = False
    assert await sweeps(ingest, 3) == [SEALED]


async def test_a_seal_of_a_process_that_died_is_sent(ingest: Ingest) -> None:
    """Stored and not sent, by somebody else: nothing but the object tells of it."""
    await desk.fix_size(ingest, "j", 1)
    await shown(ingest)
    assert await sweeps(ingest, 3) == [SEALED]


async def test_a_seal_that_was_sent_or_seen_is_not_sent_again(ingest: Ingest) -> None:
    """By this process, a moment ago; or the aggregator has told the size."""
    await desk.seal(ingest, "j", 1, new_traceparent())
    await shown(ingest)
    assert await sweeps(ingest) == []
    ingest.seals.forget("j")
    await shown(ingest, told=1)
    assert await sweeps(ingest) == []


async def test_jobs_without_a_seal_are_not_asked_for_one_at_each_sweep(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose images' events say its size, and who waits behind thousands of others."""
    asked: list[str] = []
    get = ingest.store.get

    async def counted(key: str, *, bucket: str | None = None) -> bytes:
        asked.append(key)
        return await get(key, bucket=bucket)

    monkeypatch.setattr(ingest.store, "get", counted)
    await shown(ingest)
    assert await sweeps(ingest, 3) == []
    assert asked == [keys.job_sealed("j")]


async def test_no_sweep_begins_before_the_read_model_has_caught_up(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new database over topics of days: what it has not heard of yet was sent all the same."""
    ingest.settings.sweep_seconds = 0.01
    service = Service("ingest", ingest.settings)
    caught_up: list[bool] = []

    async def once(_: Ingest) -> int:
        caught_up.append(ingest.hub.caught_up)
        service.stop.set()
        return 0

    monkeypatch.setattr(sweeper, "sweep", once)
    sweeping = asyncio.create_task(sweeper.sweep_forever(service, ingest))
    await asyncio.sleep(0.2)
    ingest.hub.reached()
    await asyncio.wait_for(sweeping, 10)
    assert caught_up == [True]


async def test_of_two_tenants_the_one_in_the_settings_has_the_job(ingest: Ingest) -> None:
    """Events that came by the topic before its settings were there name both; a sweep tells."""
    for job_id, tenant in (("a", "acme"), ("b", None)):
        row = JobRow(job_id, 1, 1, tenant=CONTESTED, status=JobStatus.SUCCESSFUL.value)
        async with ingest.db.write() as c:
            await c.execute(ingest.db.upsert(tables.jobs), [asdict(row)])
        spec = JobSpec(job_id=job_id, model=ModelRef(name="m", digest="0" * 64), tenant=tenant)
        await ingest.store.put(keys.job_spec(job_id), spec.model_dump_json().encode())
        await ingest.store.put(keys.open_marker(job_id), b"")
    await sweeper.sweep(ingest)
    assert [r.job_id for r in await queries.jobs(ingest.db, tenant="acme")] == ["a"]
    assert [r.job_id for r in await queries.jobs(ingest.db, tenant=CONTESTED)] == ["b"]
