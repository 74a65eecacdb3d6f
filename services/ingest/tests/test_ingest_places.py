"""Places in a job: each is counted once and given back once, whoever dies, fails or tries again."""

# ruff: noqa: ASYNC210, ASYNC212 (the loop has nothing else to do while a request is answered)
from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from ingest_world import fresh, new_job, refused

from frond.contracts import keys
from frond.ingest import intake, places
from frond.ingest.context import Ingest
from frond.ingest.intake import File
from frond.ingest.problems import Refused
from frond.ingest.rooms import Room, make_room
from frond.ingest.settings import IngestSettings
from frond.store import ObjectStore

pytestmark = pytest.mark.stack


@pytest.fixture
async def here(store: ObjectStore, tmp_path: Path) -> AsyncIterator[Ingest]:
    """An ingest of this process, whose jobs may have two images."""
    s = store.settings
    made = Ingest(
        IngestSettings(
            s3_endpoint=s.endpoint, s3_access_key=s.access_key, s3_secret_key=s.secret_key,
            s3_bucket=store.bucket, DATABASE_PATH=tmp_path / "a.db", max_files=2,
        )  # type: ignore[call-arg]
    )  # fmt: skip
    yield made
    await made.close()


def raster(ingest: Ingest, job: str, name: str, mark: str = "upload:1") -> File:
    return File(name=name, image=ingest.store.uri(keys.job_upload(job, name)), mark=mark, size=0)


async def takes(ingest: Ingest, job: str, count: int) -> bool:
    """Whether exactly so many more images have room."""
    rooms: list[Room] = []
    try:
        for n in range(count):
            rooms.append(await make_room(ingest, job, [f"more-{n}.tif"]))
        with pytest.raises(Refused):
            await make_room(ingest, job, ["above.tif"])
    except (Refused, pytest.fail.Exception):
        return False
    finally:
        for room in rooms:
            room.leave()
    return True


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
