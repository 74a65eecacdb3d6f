"""Images in parts: what they cost their sender, and completions that meet."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from ingest_world import fresh, refused

from frond.auth import Rates
from frond.contracts.errors import FrondError, StoreUnavailable
from frond.ingest import presigned
from frond.ingest.app import make_app
from frond.ingest.context import Ingest
from frond.models.registry import Registry
from frond.store.s3 import NoTemporaryKeys

pytestmark = pytest.mark.stack


@pytest.fixture
async def inside(here: Ingest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an ingest in this process, which has no broker and lets everybody in."""

    async def none(_: Ingest) -> None:
        pass

    monkeypatch.setattr(Ingest, "require_broker", none)
    here.gate.open = True
    here.registry = Registry(here.store)
    transport = httpx.ASGITransport(make_app(here))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        yield client


async def open_job(inside: httpx.AsyncClient) -> str:
    job = fresh()
    made = await inside.post("/jobs", json={"job_id": job, "model": "blob"})
    assert made.status_code == 201, made.text
    return job


@pytest.mark.parametrize(
    ("step", "error", "status"),
    [("keys_for_writing", NoTemporaryKeys("no"), 422), ("note", StoreUnavailable("away"), 503)],
)
async def test_what_could_not_begin_costs_its_sender_nothing(
    inside: httpx.AsyncClient,
    here: Ingest,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: FrondError,
    status: int,
) -> None:
    """The PUT that the answer advises is taken; once parts have begun, it is refused until the key has
    made up for them."""
    job = await open_job(inside)
    here.rates = Rates(0, 10_000_000)
    begin = f"/jobs/{job}/images/a.tif/multipart", {"size": 20_000_000_000}

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as without:
        without.setattr(presigned, step, fail)
        assert (await inside.post(begin[0], json=begin[1])).status_code == status
    put = await inside.put(f"/jobs/{job}/images/b.tif", content=b"x")
    assert put.status_code == 201, put.text
    assert (await inside.post(begin[0], json=begin[1])).status_code == 201
    late = await inside.put(f"/jobs/{job}/images/b.tif", content=b"x")
    refused(late, 429, "rate-limited")
