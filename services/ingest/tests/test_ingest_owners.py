"""Whose a job is, in the read model: by its events in any order, and in a database from before."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from alembic import command
from pydantic import SecretStr
from sqlalchemy import text

from frond.auth import Principal, Scope
from frond.contracts import keys
from frond.contracts.envelope import new_traceparent
from frond.contracts.events import Event, ImageUploaded, JobSealed
from frond.contracts.jobs import JobSpec, ModelRef
from frond.contracts.reasons import Reason
from frond.ingest import desk, places, tenancy, uploads
from frond.ingest.context import Ingest
from frond.ingest.forms import Received
from frond.ingest.intake import File
from frond.ingest.problems import Refused
from frond.ingest.readmodel import database, queries
from frond.ingest.readmodel.apply import CONTESTED, apply, close, pin
from frond.ingest.readmodel.changes import apply_all
from frond.ingest.readmodel.database import Database
from frond.ingest.readmodel.rows import Batch, JobRow
from frond.ingest.settings import IngestSettings
from frond.ingest.wishes import Wish
from frond.models.testing import blob_model
from frond.stack import Endpoints
from frond.store import ObjectStore

MODEL = ModelRef(name="m", digest="0" * 64)


def image(n: int, tenant: str | None) -> ImageUploaded:
    return ImageUploaded(job_id="j", image=f"s3://bucket/{n}.tif", tenant=tenant)


def owner(events: tuple[Event, ...], spec: JobSpec | None = None, pin_at: int = 0) -> str | None:
    batch = Batch()
    for n, event in enumerate(events):
        if n == pin_at:
            pin(batch, "j", spec, 5)
        apply(batch, event, 10)
    close(batch)
    return batch.jobs["j"].tenant


def test_the_owner_does_not_depend_on_order() -> None:
    """Named once, by whichever event: that tenant. Two names, in any order and however often: none."""
    seal = JobSealed(job_id="j", job_size=2)
    cases: list[tuple[tuple[Event, ...], str | None]] = [
        ((image(1, None), seal), None),
        ((image(1, None), image(2, "acme"), seal), "acme"),
        ((image(1, "acme"), image(2, "acme"), seal), "acme"),
        ((image(1, "acme"), image(2, "beta"), seal), CONTESTED),
        ((image(1, "acme"), image(2, "beta"), image(1, "acme"), image(3, None)), CONTESTED),
    ]
    for events, expected in cases:
        for order in itertools.permutations(events):
            assert owner(order) == expected, order
    spec = JobSpec(job_id="j", model=MODEL, tenant="acme")
    for at in range(2):
        assert owner((image(1, None), seal), spec, at) == "acme"


def test_the_tenant_of_the_settings_is_the_jobs() -> None:
    """Whatever events name, before and after: one message hides no job from those whose it is. Where
    the settings name none, events do."""
    events = (image(1, "beta"), image(2, "acme"), image(3, "gamma"))
    spec = JobSpec(job_id="j", model=MODEL, tenant="acme")
    for order, at in itertools.product(itertools.permutations(events), range(3)):
        assert owner(order, spec, at) == "acme"
    nobodys = spec.model_copy(update={"tenant": None})
    assert owner((image(1, "beta"),), nobodys) == "beta"
    assert owner(events, nobodys) == CONTESTED


async def test_a_job_begun_by_rest_stays_its_tenants(tmp_path: Path) -> None:
    """Shown before or after a message of its id that names another tenant."""
    db = Database(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")
    await db.migrate()
    for n, steps in enumerate(itertools.permutations(("beta", "acme", None))):
        for named in steps:
            if named is None:
                await queries.accept(db, JobRow(f"j{n}", 1, 1, tenant="acme", pinned=True))
                continue
            event = image(1, named).model_copy(update={"job_id": f"j{n}"})
            async with db.write() as c:
                await apply_all(db, c, [(event, 5)])
        assert len(await queries.jobs(db, tenant="acme")) == n + 1
    await db.close()


async def test_jobs_from_before_there_were_tenants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database of the first schema is brought up to date: its jobs stay, and belong to nobody."""
    db = Database(f"sqlite+aiosqlite:///{tmp_path / 'old.db'}")
    with monkeypatch.context() as patch:
        # the schema as it was released
        patch.setattr(
            database, "_upgrade",
            lambda c: database._alembic(c, lambda config: command.upgrade(config, "0001")),
        )  # fmt: skip
        await db.migrate()
    row = {k: v for k, v in asdict(JobRow("old", 1, 1)).items() if k not in ("tenant", "pinned")}
    names = ", ".join(f'"{k}"' for k in row)
    async with db.write() as c:
        values = ", ".join(f":{k}" for k in row)
        await c.execute(text(f"INSERT INTO jobs ({names}) VALUES ({values})"), row)
    await db.migrate()
    assert [r.job_id for r in await queries.jobs(db)] == ["old"]
    assert await queries.jobs(db, tenant="default") == []
    found = await queries.job(db, "old")
    assert found is not None and found.tenant is None
    await db.close()


@pytest.mark.parametrize("tenant", ["acme", None])
async def test_jobs_begun_at_once_are_counted_one_by_one(
    tenant: str | None, tmp_path: Path
) -> None:
    """Of twenty requests that all wait for the database, as many are let in as there is room for;
    a place that is given back is free again. Keys of no tenant have no more room than others."""
    ingest = Ingest(IngestSettings(DATABASE_PATH=tmp_path / "a.db", max_open_jobs=3))  # type: ignore[call-arg]
    who = Principal("key:1", tenant, frozenset({Scope.SUBMIT}))
    done = asyncio.Event()
    try:
        await ingest.prepared()

        async def one(n: int) -> bool:
            try:
                async with tenancy.room_for_job(ingest, f"job-{n}", who):
                    await done.wait()
                    return True
            except Refused as e:
                assert e.status == 429
                return False

        tasks = [asyncio.create_task(one(n)) for n in range(20)]
        refused = [await t for t in itertools.islice(asyncio.as_completed(tasks), 17)]
        assert not any(refused)
        done.set()
        assert sum(await asyncio.gather(*tasks)) == 3
        assert ingest.beginning == {} and await one(20)
    finally:
        done.set()
        await ingest.close()


class Meanwhile(ObjectStore):
    """Lets something happen once, before a marker of an open job is looked for again."""

    then: Callable[[], Awaitable[object]] | None = None
    looked = 0

    async def exists(self, key: str) -> bool:
        self.looked += key.startswith(keys.OPEN)
        if self.looked == 2 and self.then is not None:
            then, self.then = self.then, None
            await then()
        return await super().exists(key)


@pytest.mark.stack
async def test_a_form_joins_no_job_that_another_began_meanwhile(
    stack: Endpoints, bucket: str, tmp_path: Path
) -> None:
    """Begun by another tenant between the look whether the id is free and the look what is there:
    the form is refused like any other, and nothing of it is in the job."""
    settings = IngestSettings(
        s3_endpoint=stack.s3_endpoint, s3_access_key=stack.access_key,
        s3_secret_key=SecretStr(stack.secret_key), s3_bucket=bucket, default_model="blob",
        DATABASE_PATH=tmp_path / "a.db",  # type: ignore[call-arg]
    )  # fmt: skip
    ingest = Ingest(settings)
    acme, beta = (
        Principal(f"key:{t}", t, frozenset({Scope.SUBMIT, Scope.READ})) for t in ("acme", "beta")
    )
    try:
        await ingest.prepared()
        await ingest.registry.push(blob_model(tmp_path / "blob"))
        store = ingest.store = Meanwhile(ingest.store.settings)

        async def begin() -> None:
            spec = await desk.pin(ingest, "mine", Wish(), acme)
            await desk.open_for_work(ingest, spec, None)

        store.then = begin
        file = File(name="a.tif", image=store.uri("uploads/u-1/a.tif"), mark="sha256:0", size=1)
        form = Received(fields={"job_id": "mine"}, files=[file])
        with pytest.raises(Refused, match=r"cannot be used\. Choose another") as caught:
            await uploads.accept(ingest, form, "u-1", "mine", beta, new_traceparent())
        assert caught.value.reason is Reason.CONFLICT and store.then is None
        assert [o async for o in store.list(keys.job_inputs("mine"))] == []
        assert [o async for o in store.list(places.claims("mine"))] == []
    finally:
        await ingest.close()


def test_places_are_read_at_the_start() -> None:
    """FROND_TENANT_PLACES by tenant, folders only; what cannot be read keeps the service down."""
    told = IngestSettings(tenant_places="a=s3://imagery/a, a=s3://imagery/b/ ,b=s3://whole")
    assert [str(p) for p in told.places["a"]] == ["s3://imagery/a/", "s3://imagery/b/"]
    assert told.places["a"][0].holds("imagery", "a/x.tif")
    assert not told.places["a"][0].holds("imagery", "ab/x.tif")
    assert told.places["b"][0].holds("whole", "x.tif")
    for bad in ("a", "a=", "=s3://imagery/a/", "a=imagery/a", "a b=s3://imagery/a/"):
        with pytest.raises(ValueError, match="s3://bucket/folder/"):
            IngestSettings(tenant_places=bad)
