"""Images in parts: what they cost their sender, and completions that meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from ingest_inside import raster, watched
from ingest_world import fresh, refused

from frond.auth import Rates
from frond.contracts import keys
from frond.contracts.errors import FrondError, StoreUnavailable
from frond.ingest import intake, places, presigned
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


async def test_who_has_begun_a_large_image_can_go_on_with_the_job(
    inside: httpx.AsyncClient, here: Ingest
) -> None:
    """However long its parts take at the key's rate: complete it, name others, seal, cancel and delete.
    Further rasters wait, no longer than the parts' addresses live."""
    job = await open_job(inside)
    await here.store.put("in/b.tif", b"x")
    complete, body = await put_in_parts(inside, job, b"abc")
    here.rates = Rates(0, 10_000_000)
    large = {"size": 230_000_000_000}
    begun = await inside.post(f"/jobs/{job}/images/large.tif/multipart", json=large)
    assert begun.status_code == 201, begun.text
    for late in (
        await inside.put(f"/jobs/{job}/images/c.tif", content=b"x"),
        await inside.post("/upload", files={"f": ("c.tif", b"x")}),
        await inside.post("/models", files={"f": ("model.yaml", b"x")}),
        await inside.post(f"/jobs/{job}/images/c.tif/multipart", json=large),
    ):
        refused(late, 429, "rate-limited")
        assert int(late.headers["retry-after"]) <= here.settings.presign_seconds
    assert (await inside.post(complete, json=body)).status_code == 201
    named = {"images": [here.store.uri("in/b.tif")]}
    assert (await inside.post(f"/jobs/{job}/images", json=named)).status_code == 201
    assert (await inside.post(f"/jobs/{job}/seal", json={})).status_code == 200
    for asked in (await inside.post(f"/jobs/{job}/cancel"), await inside.delete(f"/jobs/{job}")):
        refused(asked, 503, "unavailable")  # there is no broker here


async def put_in_parts(
    inside: httpx.AsyncClient, job: str, data: bytes
) -> tuple[str, dict[str, Any]]:
    """Parts of a.tif, said to have three bytes, that are in the store: what completes them."""
    begun = (await inside.post(f"/jobs/{job}/images/a.tif/multipart", json={"size": 3})).json()
    async with httpx.AsyncClient() as store:
        put = await store.put(begun["part_urls"][0], content=data)
    parts = [{"number": 1, "etag": put.headers["etag"]}]
    return begun["complete"], {"upload_id": begun["upload_id"], "parts": parts}


async def join(here: Ingest, job: str, body: dict[str, Any]) -> str:
    """Make the object as a request that dies then; returns its key."""
    key = keys.job_upload(job, "a.tif")
    parts = [(p["number"], p["etag"]) for p in body["parts"]]
    await presigned.finish_parts(here.store, key, body["upload_id"], parts)
    return key


async def recorded(here: Ingest, job: str) -> bool:
    return await intake.recorded(here, job, raster(here, job, "a.tif"))


@pytest.mark.parametrize("looks", [1, 2])
@pytest.mark.parametrize("data", [b"abc", b"abcd"])
async def test_completions_that_meet_agree(
    inside: httpx.AsyncClient, here: Ingest, looks: int, data: bytes
) -> None:
    """One comes while the other one has looked at the object once, or twice: what fits is recorded,
    and both are told so; what does not is an image for neither, and its name is free."""
    job = await open_job(inside)
    complete, body = await put_in_parts(inside, job, data)
    key = await join(here, job, body)
    answers: list[int] = []

    async def looked() -> None:
        nonlocal looks
        looks -= 1
        if looks:
            watched(here).once(key, looked)
        else:
            answers.append((await inside.post(complete, json=body)).status_code)

    watched(here).once(key, looked)
    answers.append((await inside.post(complete, json=body)).status_code)
    assert await recorded(here, job) == await here.store.exists(key) == (data == b"abc")
    if data == b"abc":
        assert answers == [200, 200]
        return
    assert answers[0] == 422 and answers[1] in (404, 422)
    complete, body = await put_in_parts(inside, job, b"abc")
    assert (await inside.post(complete, json=body)).status_code == 201


async def test_what_is_completed_anew_is_not_deleted(
    inside: httpx.AsyncClient, here: Ingest
) -> None:
    """Somebody else found the misfit first, and its sender has sent it again with the right bytes."""
    job = await open_job(inside)
    complete, body = await put_in_parts(inside, job, b"abcd")
    key = await join(here, job, body)

    async def told_and_mended() -> None:
        refused(await inside.post(complete, json=body), 422, "bad-request")
        again, right = await put_in_parts(inside, job, b"abc")
        assert (await inside.post(again, json=right)).status_code == 201

    async def looked() -> None:
        watched(here).once(key, told_and_mended)

    watched(here).once(key, looked)
    refused(await inside.post(complete, json=body), 404, "object-missing")
    assert await recorded(here, job) and await here.store.get(key) == b"abc"


async def test_an_object_of_which_nothing_is_known_is_no_image(
    inside: httpx.AsyncClient, here: Ingest
) -> None:
    """Whatever its size, it is not taken. One that was recorded is, however often its sender asks."""
    job = await open_job(inside)
    complete, body = await put_in_parts(inside, job, b"abcd")
    await join(here, job, body)
    await presigned.forget(here, job, body["upload_id"])
    refused(await inside.post(complete, json=body), 404, "object-missing")
    assert not await recorded(here, job)
    other = await open_job(inside)
    complete, body = await put_in_parts(inside, other, b"abc")
    answers = [(await inside.post(complete, json=body)).status_code for _ in range(3)]
    assert answers == [201, 200, 200]


@pytest.mark.parametrize(("data", "status"), [(b"abc", 200), (b"abcd", 422)])
async def test_what_was_said_of_a_joined_object_outlives_its_addresses(
    inside: httpx.AsyncClient, here: Ingest, data: bytes, status: int
) -> None:
    """Its request died before it was recorded, and its sender comes again when the addresses are good
    no more: it is measured, and taken if it fits. With the job's end nothing stays."""
    job = await open_job(inside)
    complete, body = await put_in_parts(inside, job, data)
    await join(here, job, body)
    await asyncio.sleep(1)  # objects are as old as whole seconds
    old = places.parts_of(job), 0.001
    assert await presigned.give_up(here, *old) == 0
    assert (await inside.post(complete, json=body)).status_code == status
    other = await open_job(inside)
    _, body = await put_in_parts(inside, other, data)
    await join(here, other, body)
    assert await presigned.give_up(here, places.parts_of(other)) == 1
