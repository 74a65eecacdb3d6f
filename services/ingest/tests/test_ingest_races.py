"""What must hold when requests meet: none of them is answered with what is not so."""

# ruff: noqa: ASYNC210, ASYNC212 (the loop has nothing else to do while a request is answered)
from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from ingest_world import new_job, refused

from frond.bus import EventProducer, Outgoing
from frond.contracts import keys, topics
from frond.contracts.events import ImageUploaded, JobCompleted
from frond.contracts.jobs import ImageCounts, JobOutcome, JobStatus, WindowCounts
from frond.ingest import places, presigned
from frond.ingest.context import Ingest
from frond.ingest.intake import File
from frond.ingest.settings import IngestSettings
from frond.store import ObjectStore
from support.waiting import until

pytestmark = pytest.mark.stack


class Slow:
    """A body whose last byte waits."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        yield self.data[:-1]
        self.begun.set()
        self.go_on.wait(30)
        yield self.data[-1:]


def test_an_image_under_way_while_the_job_is_sealed(api: httpx.Client) -> None:
    """It is refused, or it is in the job; never answered 201 and left out."""
    job = new_job(api)
    assert api.put(f"/jobs/{job}/images/a.tif", content=b"a").status_code == 201
    body = Slow(b"x" * 200_000)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(api.put, f"/jobs/{job}/images/b.tif", content=iter(body))
        assert body.begun.wait(30)
        assert api.post(f"/jobs/{job}/seal").json()["images"]["expected"] == 1
        body.go_on.set()
        refused(late.result(), 409, "job-closed")
    again = api.post(f"/jobs/{job}/seal")
    assert again.status_code == 200 and again.json()["images"]["expected"] == 1


async def test_many_images_and_a_seal(api: httpx.Client, store: ObjectStore) -> None:
    """Sealed amid twenty PUTs: the size is the number of those that were answered 201."""
    job = new_job(api)

    def put(n: int) -> int:
        return api.put(f"/jobs/{job}/images/{n}.tif", content=b"x").status_code

    def seal(_: int) -> httpx.Response:
        return api.post(f"/jobs/{job}/seal")

    with ThreadPoolExecutor(21) as pool:
        first = [pool.submit(put, n) for n in range(10)]
        until(lambda: any(f.done() for f in first))
        sealed = pool.submit(seal, 0)
        rest = [pool.submit(put, n) for n in range(10, 20)]
        answers = [f.result() for f in first + rest]
    size = sealed.result().json()["images"]["expected"]
    assert set(answers) <= {201, 409} and size == answers.count(201)
    assert len([o async for o in store.list(keys.job_inputs(job))]) == size


async def test_a_dead_requests_claim_does_not_count(api: httpx.Client, store: ObjectStore) -> None:
    """While its claim is young, sealing waits and says so; nothing is sealed by a guess."""
    job = new_job(api)
    assert api.put(f"/jobs/{job}/images/a.tif", content=b"a").status_code == 201
    dead = File(name="b.tif", image=store.uri(f"uploads/{job}/b.tif"), mark="sha256:0", size=1)
    await store.put(places.claim(job, dead.name), dead.model_dump_json().encode())
    waiting = api.post(f"/jobs/{job}/seal")
    assert "1 images" in refused(waiting, 409, "conflict") and waiting.headers["retry-after"]
    assert not await store.exists(keys.job_sealed(job))
    # other bytes wait for the lease, and the job is open again
    refused(api.put(f"/jobs/{job}/images/b.tif", content=b"b"), 409, "conflict")
    assert api.put(f"/jobs/{job}/images/c.tif", content=b"c").status_code == 201


async def test_a_claim_is_taken_over_once(store: ObjectStore) -> None:
    """Of several who find it abandoned, the first; the others see that it is another one now."""
    key = f"x/{secrets.token_hex(4)}"
    etag = (await store.put(key, b"dead")).etag
    assert await store.replace(key, b"first", etag)
    assert not await store.replace(key, b"second", etag)
    assert await store.get(key) == b"first"
    assert not await store.replace(f"{key}-none", b"x", etag)


def test_sizes_of_a_seal(api: httpx.Client) -> None:
    """Too small: refused, the job stays open. Too large: what is missing may still come."""
    job = new_job(api)
    for n in range(3):
        assert api.put(f"/jobs/{job}/images/{n}.tif", content=b"x").status_code == 201
    assert "3 images" in refused(
        api.post(f"/jobs/{job}/seal", json={"job_size": 1}), 409, "conflict"
    )
    assert api.post(f"/jobs/{job}/seal", json={"job_size": 5}).status_code == 200
    for n in (3, 4):
        assert api.put(f"/jobs/{job}/images/{n}.tif", content=b"x").status_code == 201
    refused(api.put(f"/jobs/{job}/images/5.tif", content=b"x"), 409, "job-closed")
    assert api.post(f"/jobs/{job}/seal").json()["images"]["expected"] == 5


async def test_one_name_with_different_bytes_at_once(api: httpx.Client, store: ObjectStore) -> None:
    """Of two PUTs of a name one wins, and its bytes are what is stored."""
    for _ in range(5):
        job = new_job(api)
        bodies = [Slow(bytes([65 + n]) * 200_000) for n in range(2)]
        with ThreadPoolExecutor(2) as pool:
            puts = [
                pool.submit(api.put, f"/jobs/{job}/images/a.tif", content=iter(b)) for b in bodies
            ]
            assert all(b.begun.wait(30) for b in bodies)
            for b in bodies:
                b.go_on.set()
            answers = [p.result().status_code for p in puts]
        assert sorted(answers) == [201, 409]
        kept = await store.get(keys.job_upload(job, "a.tif"))
        assert kept == bodies[answers.index(201)].data
        assert api.post(f"/jobs/{job}/seal").json()["images"]["expected"] == 1


def test_an_expired_multipart_upload_leaves_the_name_free(api: httpx.Client) -> None:
    """404 says to begin a new one, and then one can."""
    job = new_job(api)
    url = f"/jobs/{job}/images/a.tif/multipart"
    part = {"number": 1, "etag": "0" * 32}
    gone = api.post(f"{url}/complete", json={"upload_id": "gone", "parts": [part]})
    refused(gone, 404, "object-missing")
    begun = api.post(url, json={"size": 3}).json()
    put = httpx.put(begun["part_urls"][0], content=b"abc")
    done = api.post(
        begun["complete"],
        json={"upload_id": begun["upload_id"], "parts": [{**part, "etag": put.headers["etag"]}]},
    )
    assert done.status_code == 201, done.text
    refused(api.post(url, json={"size": 3}), 409, "conflict")


def test_parts_are_as_long_as_was_said(api: httpx.Client) -> None:
    """More or fewer bytes than were said at the beginning: no image, and the name is free."""
    job = new_job(api)
    url = f"/jobs/{job}/images/a.tif/multipart"
    for data in (b"abcd", b"ab", b"abc"):
        begun = api.post(url, json={"size": 3}).json()
        etag = httpx.put(begun["part_urls"][0], content=data).headers["etag"]
        body = {"upload_id": begun["upload_id"], "parts": [{"number": 1, "etag": etag}]}
        done = api.post(begun["complete"], json=body)
        if len(data) == 3:
            assert (done.status_code, done.json()["size"]) == (201, 3), done.text
            assert api.post(begun["complete"], json=body).status_code == 200
        else:
            assert f"{len(data)} bytes" in refused(done, 422, "bad-request")
            refused(api.post(begun["complete"], json=body), 404, "object-missing")
    assert api.post(f"/jobs/{job}/seal").json()["images"]["expected"] == 1


async def test_parts_that_are_never_completed_are_dropped(
    door: Any, api: httpx.Client, store: ObjectStore, tmp_path: Path
) -> None:
    """With their job's end by cancel or DELETE, and when their URLs are good no more: nothing of
    them is left, and no further part is taken."""
    jobs = [new_job(api) for _ in range(3)]
    urls = []
    for job in jobs:
        begun = api.post(f"/jobs/{job}/images/a.tif/multipart", json={"size": 3}).json()
        urls.append(begun["part_urls"][0])
        assert httpx.put(urls[-1], content=b"abc").status_code == 200
        assert len([o async for o in store.list(places.parts_of(job))]) == 1
    assert api.post(f"/jobs/{jobs[0]}/cancel").status_code == 200
    s = store.settings
    here = Ingest(
        IngestSettings(
            s3_endpoint=s.endpoint, s3_access_key=s.access_key, s3_secret_key=s.secret_key,
            s3_bucket=store.bucket, DATABASE_PATH=tmp_path / "a.db",
        )  # type: ignore[call-arg]
    )  # fmt: skip
    try:
        assert await presigned.give_up(here, older_than=3600) == 0
        assert await presigned.give_up(here, places.parts_of(jobs[1])) == 1
        assert httpx.put(urls[2], content=b"abc").status_code == 200
        assert await presigned.give_up(here) == 1
    finally:
        await here.close()
    for job, url in zip(jobs, urls, strict=True):
        assert httpx.put(url, content=b"abc").status_code == 404
        assert [o async for o in store.list(places.parts_of(job))] == []


async def test_a_key_that_no_event_can_hold(
    door: Any, api: httpx.Client, store: ObjectStore
) -> None:
    """It is a failed image of its job; the service and its sweeper go on."""
    folder = f"in-{secrets.token_hex(4)}"
    for name in ("good.tif", "a\nb.tif"):
        await store.put(f"{folder}/{name}", b"x")
    answer = api.post("/start-job", json={"s3_url": f"s3://{door.bucket}/{folder}/"})
    assert answer.status_code == 202 and answer.json()["images"]["expected"] == 2, answer.text
    url = f"/jobs/{answer.json()['job_id']}"
    failed = until(lambda: api.get(f"{url}/images?status=failed").json()["images"])
    assert [(i["name"], i["reason"]) for i in failed] == [("a\nb.tif", "bad-image-uri")]
    until(lambda: api.get(url).json()["images"]["received"] == 2)


async def test_a_job_that_cannot_be_read_stops_no_sweep(
    door: Any, api: httpx.Client, store: ObjectStore
) -> None:
    """Broken objects of one job: the next one's images are still sent."""
    broken, whole = (f"job-{n}-{secrets.token_hex(4)}" for n in "ab")
    new_job(api, job_id=whole)
    spec = await store.get(keys.job_spec(whole))
    await store.put(keys.job_spec(broken), spec)
    await store.put(places.manifest(broken), b"{}")
    await store.put(keys.open_marker(broken), b"")
    event = ImageUploaded(job_id=whole, image=store.uri("x/a.tif"))
    record = keys.job_input_record(whole, event.image_id)
    await store.put(record, event.model_dump_json().encode())
    until(lambda: api.get(f"/jobs/{whole}").json()["images"]["received"] == 1)
    assert door.process.poll() is None
    await store.delete(keys.open_marker(broken))


async def test_one_object_under_a_taken_id(
    door: Any, api: httpx.Client, store: ObjectStore
) -> None:
    """The same object again is the same job; another one is a conflict."""
    folder, job = f"in-{secrets.token_hex(4)}", f"job-{secrets.token_hex(4)}"
    for n in "ab":
        await store.put(f"{folder}/{n}.tif", b"x")
    url = f"s3://{door.bucket}/{folder}/"
    for _ in range(2):
        same = api.post("/start-job", json={"s3_url": f"{url}a.tif", "job_id": job})
        assert same.status_code == 202 and same.json()["images"]["expected"] == 1
    for other in (f"{url}b.tif", url):
        refused(api.post("/start-job", json={"s3_url": other, "job_id": job}), 409, "conflict")
    assert len([o async for o in store.list(keys.job_inputs(job))]) == 1


async def test_a_deleted_job_stays_cancelled(
    api: httpx.Client, store: ObjectStore, send: EventProducer
) -> None:
    """Sweeping up after it leaves the mark by which workers know; its uploads are gone."""
    job = f"job-{secrets.token_hex(4)}"
    files = [("f", (f"{n}.tif", b"x")) for n in range(3)]
    api.post("/upload", data={"job_id": job}, files=files)
    (record, *_) = [o.key async for o in store.list(keys.job_inputs(job))]
    image = json.loads(await store.get(record))["image"].split("/", 3)[3]
    api.post(f"/jobs/{job}/cancel")
    over = JobCompleted(
        job_id=job, status=JobStatus.DISMISSED, outcome=JobOutcome.DISMISSED,
        images=ImageCounts(expected=3), windows=WindowCounts(), detections={},
    )  # fmt: skip
    await send.send(Outgoing(topics.COMPLETED, over))
    until(lambda: api.get(f"/jobs/{job}").json()["outcome"])
    assert api.delete(f"/jobs/{job}").status_code == 204
    folder = image.rsplit("/", 1)[0] + "/"
    assert [o async for o in store.list(folder)] == []
    await store.put(f"{keys.job_prefix(job)}late", b"")

    s3 = store.s3

    def swept() -> bool:
        under = s3.list_objects(store.bucket, keys.job_prefix(job), recursive=True)
        return [o.object_name for o in under] == [keys.job_cancelled(job)]

    until(swept)
    assert await store.exists(keys.job_cancelled(job))


JSON = {"Content-Type": "application/json"}


def test_odd_values_are_the_senders_fault(api: httpx.Client) -> None:
    """Numbers beyond all columns, half characters, dates without a zone: 4xx, or an answer."""
    for body in (b'{"model": "\\ud800"}', b'{"webhook_url": "http://x/\\ud800"}',
                 b'{"job_id": "\\ud800"}', b'{"\\ud800": 1}', b'{"job_id": "abc\\n"}',
                 b'{"size": 1' + b"0" * 30 + b"}", b'{"size": 2147483648}'):  # fmt: skip
        answer = api.post("/jobs", content=body, headers=JSON)
        assert answer.status_code == 422, (body, answer.text)
    start = api.post("/start-job", content=b'{"s3_url": "s3://\\ud800/x"}', headers=JSON)
    assert start.status_code == 422
    job = new_job(api)
    for path, body in (
        ("images", b'{"images": ["s3://bucket/\\ud800.tif"]}'),
        ("images/a.tif/multipart/complete",
         b'{"upload_id": "\\ud800", "parts": [{"number": 1, "etag": "x"}]}'),
        ("seal", b'{"size": 2147483648}'),
    ):  # fmt: skip
        answer = api.post(f"/jobs/{job}/{path}", content=body, headers=JSON)
        assert answer.status_code in (403, 422), answer.text
    for moment in ("0001-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        for side in ("since", "until"):
            assert api.get("/jobs", params={side: moment}).status_code == 200
    assert api.get("/jobs", params={"since": "10000-01-01T00:00:00"}).status_code == 422
    for path in ("/jobs/a%00b", "/status/a%00b", "/jobs/a%00b/images", "/jobs/a%00b/events"):
        assert api.get(path).status_code == 422
    assert api.get(f"/jobs/{job}/results/images/a%00b/coco.json").status_code in (404, 422)
    assert api.get(f"/jobs/{job}/images?limit=1&cursor=WyJcdTAwMDAiLCAiYSJd").status_code in (
        200, 422,
    )  # fmt: skip
    long = {"Last-Event-ID": "9" * 5000}
    with api.stream("GET", f"/jobs/{job}/events", headers=long) as stream:
        assert stream.status_code == 200
