"""Places in a job: each is counted once and given back once, whoever dies, fails or tries again."""

# ruff: noqa: ASYNC210, ASYNC212 (the loop has nothing else to do while a request is answered)
from __future__ import annotations

import hashlib
import json

import httpx
import pytest
from ingest_inside import raster, takes, watched
from ingest_world import fresh, new_job, refused

from frond.auth import Principal, Scope
from frond.contracts import keys
from frond.contracts.ids import image_id
from frond.ingest import intake, places, uploads
from frond.ingest.context import Ingest
from frond.ingest.forms import Received
from frond.ingest.intake import File
from frond.ingest.problems import Refused
from frond.ingest.rooms import make_room
from frond.store import ObjectStore

pytestmark = pytest.mark.stack


async def test_a_name_that_is_given_back_twice_is_one_place(here: Ingest) -> None:
    """Two attempts to complete an upload that is over: the second finds the name free, claims it
    and gives it back as well. Then the job takes as many images as before, and not one more."""
    job = fresh()
    file = raster(here, job, "a.tif")
    rooms = [await make_room(here, job, [file.name]) for _ in range(2)]
    for room in rooms:
        await intake.claim(here, job, [file], room)
        await intake.release(here, job, file, room)
    for room in rooms:
        room.leave()
    assert await takes(here, job, 2)


async def test_names_of_dead_requests_given_back(here: Ingest) -> None:
    """Claimed by a process that died, then found to be over by two attempts at once: one place."""
    job = fresh()
    file = raster(here, job, "a.tif")
    claim = places.claim(job, file.name)
    await here.store.put(claim, file.model_dump_json().encode())
    assert await takes(here, job, 1)
    rooms = [await make_room(here, job, [file.name]) for _ in range(2)]
    for room in rooms:
        await intake.claim(here, job, [file], room)
        await intake.release(here, job, file, room)
        room.leave()
    assert await takes(here, job, 2)
    # and where they are counted for the first time while one is being given back
    other = fresh()
    await here.store.put(
        places.claim(other, file.name), raster(here, other, "a.tif").model_dump_json().encode()
    )
    room = await make_room(here, other, [file.name])
    await intake.release(here, other, raster(here, other, "a.tif"), room)
    assert await takes(here, other, 1)
    room.leave()
    assert await takes(here, other, 2)


async def test_a_dead_requests_name_is_no_second_place(here: Ingest, store: ObjectStore) -> None:
    """Its name may be claimed again, by other bytes too, in a job that has no place but its."""
    job = fresh()
    for name in ("a.tif", "b.tif"):
        dead = raster(here, job, name)
        await store.put(places.claim(job, name), dead.model_dump_json().encode())
    room = await make_room(here, job, ["a.tif", "b.tif"])
    room.leave()
    assert await takes(here, job, 0)


async def test_claims_that_may_be_stored_are_counted_again(
    here: Ingest, store: ObjectStore
) -> None:
    """It broke between claim and answer: what the store has is counted, what it has not is not."""
    job = fresh()
    assert await takes(here, job, 2)
    room = await make_room(here, job, ["a.tif", "b.tif"])
    await store.put(keys.job_sealed(job), b"?")
    with pytest.raises(json.JSONDecodeError):
        await intake.claim(here, job, [raster(here, job, n) for n in ("a.tif", "b.tif")], room)
    await store.delete(keys.job_sealed(job))
    await store.delete(places.claim(job, "b.tif"))
    room.leave()
    assert await takes(here, job, 1)


async def test_the_last_image_in_parts_is_begun_again(
    api: httpx.Client, store: ObjectStore
) -> None:
    """The process died between claim and object of a sized job's last image. A sender that has lost
    the upload's id begins anew; one that has it completes it; the job never takes another image."""
    job = new_job(api, size=1)
    name = "a.tif"
    dead = File(
        name=name, image=store.uri(keys.job_upload(job, name)), mark="upload:dead", size=0, by="x"
    )
    await store.put(places.claim(job, name), dead.model_dump_json().encode())
    begun = api.post(f"/jobs/{job}/images/{name}/multipart", json={"size": 3})
    assert begun.status_code == 201, begun.text
    refused(api.post(f"/jobs/{job}/images/b.tif/multipart", json={"size": 3}), 409, "job-closed")
    etag = httpx.put(begun.json()["part_urls"][0], content=b"abc").headers["etag"]
    body = {"upload_id": begun.json()["upload_id"], "parts": [{"number": 1, "etag": etag}]}
    # the claim is young: whoever made it may still be at it
    young = api.post(begun.json()["complete"], json=body)
    assert "is free in" in refused(young, 409, "conflict")
    assert 0 < int(young.headers["retry-after"]) <= intake.LEASE_S
    # what an attempt leaves that dies there
    mark = "upload:" + hashlib.sha256(body["upload_id"].encode()).hexdigest()
    again = dead.model_copy(update={"mark": mark})
    await store.put(places.claim(job, name), again.model_dump_json().encode())
    assert api.post(begun.json()["complete"], json=body).status_code == 201
    refused(api.put(f"/jobs/{job}/images/b.tif", content=b"b"), 409, "job-closed")
    assert api.post(f"/jobs/{job}/seal").json()["images"]["expected"] == 1


async def test_what_other_jobs_give_back_delays_nobody(here: Ingest) -> None:
    """Somebody claims and gives back names of another job for ever: this one's are looked at once."""
    job, other = fresh(), fresh()
    looks = 0

    async def bother() -> None:
        nonlocal looks
        looks += 1
        if looks < 20:
            watched(here).once(places.claim(job, "a.tif"), bother)
        file = raster(here, other, "b.tif")
        room = await make_room(here, other, [file.name])
        await intake.claim(here, other, [file], room)
        await intake.release(here, other, file, room)
        room.leave()

    watched(here).once(places.claim(job, "a.tif"), bother)
    (await make_room(here, job, ["a.tif"])).leave()
    assert looks == 1 and not here.looking


@pytest.mark.parametrize("gives_back", [True, False])
async def test_a_name_that_is_let_go_while_it_is_looked_at(here: Ingest, gives_back: bool) -> None:
    """Claimed when it was looked at, and free since; or the other way round: it has one place."""
    job = fresh()
    file = raster(here, job, "a.tif")
    await here.store.put(keys.job_upload(job, file.name), b"")
    if gives_back:
        await here.store.put(places.claim(job, file.name), file.model_dump_json().encode())

    async def attempt() -> None:
        room = await make_room(here, job, [file.name])
        await intake.claim(here, job, [file], room)
        if gives_back:
            await intake.release(here, job, file, room)
        room.leave()

    watched(here).once(places.claim(job, file.name), attempt)
    room = await make_room(here, job, [file.name])
    assert await takes(here, job, 1)
    await intake.claim(here, job, [file], room)
    room.leave()
    assert await takes(here, job, 1)


@pytest.mark.parametrize("both", [False, True])
async def test_two_attempts_hold_a_name(here: Ingest, both: bool) -> None:
    """The one that claimed it meets somebody who seals the job, and is refused. The other one, with
    the same bytes, is not: it has the name still, and the place, and what the first one stored. When
    both are refused the name is free."""
    job, sealing = fresh(), ""
    sealing = places.sealing(job)
    mine, other = (raster(here, job, "a.tif") for _ in range(2))
    mine = mine.model_copy(update={"image": here.store.uri("uploads/u-1/000000-a.tif")})
    await here.store.put("uploads/u-1/000000-a.tif", b"")
    await here.store.put(sealing, b"")
    rooms = [await make_room(here, job, ["a.tif"]) for _ in range(2)]
    won: list[File] = []

    async def second() -> None:
        if both:
            with pytest.raises(Refused):
                await intake.claim(here, job, [other], rooms[1])
        else:
            await here.store.delete(sealing)
            won.extend(await intake.claim(here, job, [other], rooms[1]))

    watched(here).once(sealing, second)
    with pytest.raises(Refused, match="was sealed"):
        await intake.claim(here, job, [mine], rooms[0])
    for room in rooms:
        room.leave()
    claim = await intake.claimed(here, job, "a.tif")
    kept = await uploads.kept(here, job, "u-1", [mine])
    if both:
        assert claim is None and not kept
    else:
        assert claim is not None and [claim.image] == [f.image for f in won] == [mine.image]
        assert kept == {"uploads/u-1/000000-a.tif"}
    await here.store.delete(sealing)
    assert await takes(here, job, 2 if both else 1)


async def test_a_name_held_by_two_counts_while_a_job_is_sealed(here: Ingest) -> None:
    """A dead request's claim, too old to be waited for, is as young as who joins it."""
    job = fresh()
    file = raster(here, job, "a.tif")
    await here.store.put(
        places.claim(job, file.name),
        file.model_copy(update={"by": "dead"}).model_dump_json().encode(),
    )
    before = await here.store.stat(places.claim(job, file.name))
    room = await make_room(here, job, [file.name])
    (won,) = await intake.claim(here, job, [file], room)
    room.leave()
    after = await here.store.stat(places.claim(job, file.name))
    assert before.etag != after.etag and won.by.startswith("dead ")


async def test_a_form_is_recorded_whole_or_not_at_all(here: Ingest, api: httpx.Client) -> None:
    """One of its names was claimed by a request that died. Sealing that begins as soon as the first
    of its images has a record refuses neither."""
    job = new_job(api)
    who = Principal(subject="test", tenant=None, scopes=frozenset({Scope.ADMIN}))
    prefix = "uploads/u-2/"
    files = [
        File(name=n, image=here.store.uri(prefix + n), mark=f"sha256:{n}", size=1) for n in "ab"
    ]
    for file in files:
        await here.store.put(prefix + file.name, b"x")
    dead = raster(here, job, "b", files[1].mark)
    await here.store.put(keys.job_upload(job, "b"), b"x")
    await here.store.put(places.claim(job, "b"), dead.model_dump_json().encode())
    records = [keys.job_input_record(job, image_id(job, f.image)) for f in (files[0], dead)]

    async def seal() -> None:
        await here.store.put(places.sealing(job), b"")

    watched(here).once(records[0], seal)
    await uploads.accept(here, Received(fields={}, files=files), "u-2", job, who, "")
    for record in records:
        assert await here.store.exists(record)
    # its copy of what the dead one stored
    assert not await here.store.exists(prefix + "b") and await here.store.exists(prefix + "a")
