"""The REST door on the real Kafka and MinIO, with SQLite and with PostgreSQL."""

# ruff: noqa: ASYNC210, ASYNC212 (the loop has nothing else to do while a request is answered)
from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from ingest_world import files, fresh, is_problem, on_topic

from frond.contracts import keys
from frond.contracts.events import (
    ImageUploaded,
    JobSealed,
)
from frond.contracts.reasons import Reason
from frond.stack import Endpoints
from frond.store import ObjectStore
from support.waiting import until

pytestmark = pytest.mark.stack


async def test_upload_becomes_a_job(door: Any, api: httpx.Client, store: ObjectStore) -> None:
    """Fields after the files, any field names: objects, records, events and status agree."""
    job_id = fresh()
    parts: list[Any] = files(("пальма 1.tif", b"one" * 1000), ("b.tif", b"two"))
    parts += [("job_id", (None, job_id)), ("score", (None, "0.4")), ("email", (None, "a@b.org"))]
    answer = api.post("/upload", files=parts)
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert body["job_id"] == job_id and body["images"]["expected"] == 2
    assert answer.headers["location"].endswith(f"/jobs/{job_id}")
    events = await on_topic(door, job_id)
    images = [e for e in events if isinstance(e, ImageUploaded)]
    assert sorted(e.name or "" for e in images) == ["b.tif", "пальма 1.tif"]
    assert all(e.job_size == 2 and e.thresholds.score == 0.4 for e in images)
    spec = json.loads(await store.get(keys.job_spec(job_id)))
    assert spec["model"]["name"] == "blob" and spec["email"] == "a@b.org"
    assert await store.exists(keys.open_marker(job_id))
    for event in images:
        data = await store.get(event.image.split("/", 3)[3])
        assert data == (b"two" if event.name == "b.tif" else b"one" * 1000)
        assert await store.exists(keys.job_input_record(job_id, event.image_id))
    until(lambda: api.get(f"/status/{job_id}").json()["images"]["received"] == 2)
    listed = api.get(f"/jobs/{job_id}/images").json()["images"]
    assert [i["name"] for i in listed] == ["b.tif", "пальма 1.tif"]


async def test_the_same_upload_twice_is_one_job(
    door: Any, api: httpx.Client, store: ObjectStore
) -> None:
    """Without any key, a job id and the same files are the same; other files are refused."""
    job_id = fresh()
    parts = files(("a.tif", b"a"), ("b.tif", b"b"))
    for _ in range(2):
        assert api.post("/upload", data={"job_id": job_id}, files=parts).status_code == 202
    events = [e for e in await on_topic(door, job_id) if isinstance(e, ImageUploaded)]
    assert len({e.image for e in events}) == 2
    left = [o.key async for o in store.list(keys.UPLOADS)]
    assert len([k for k in left if any(e.image.endswith(k) for e in events)]) == 2
    other = api.post("/upload", data={"job_id": job_id}, files=files(("c.tif", b"c")))
    is_problem(other, 409, Reason.JOB_CLOSED)


async def test_equal_names_in_one_upload(door: Any, api: httpx.Client) -> None:
    """The same bytes are one image; other bytes get a number."""
    job_id = fresh()
    parts = files(("s.tif", b"1"), ("s.tif", b"2"), ("s.tif", b"1"))
    answer = api.post("/upload", data={"job_id": job_id}, files=parts)
    assert answer.json()["images"]["expected"] == 2
    named = {e.name for e in await on_topic(door, job_id) if isinstance(e, ImageUploaded)}
    assert named == {"s.tif", "s (2).tif"}


def test_idempotency_keys(api: httpx.Client) -> None:
    """Same key and request: the same answer. Same key, other request: 422."""
    key = {"Idempotency-Key": secrets.token_hex(8)}
    first = api.post("/upload", files=files(("a.tif", b"a")), headers=key)
    again = api.post("/upload", files=files(("a.tif", b"a")), headers=key)
    assert first.status_code == again.status_code == 202 and first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    other = api.post("/upload", files=files(("a.tif", b"b")), headers=key)
    is_problem(other, 422, Reason.CONFLICT)
    key = {"Idempotency-Key": secrets.token_hex(8)}
    made = [api.post("/jobs", json={"score": 0.5}, headers=key).json() for _ in range(2)]
    assert made[0] == made[1]
    is_problem(api.post("/jobs", json={"score": 0.6}, headers=key), 422, Reason.CONFLICT)
    # a request that failed leaves its key free
    key = {"Idempotency-Key": secrets.token_hex(8)}
    assert api.post("/jobs", json={"model": "nobody"}, headers=key).status_code == 422
    assert api.post("/jobs", json={"model": "blob"}, headers=key).status_code == 201


def test_a_key_in_use_says_when_to_come_back(api: httpx.Client) -> None:
    """While the first request is under way, the second gets 409 and Retry-After."""
    key = {"Idempotency-Key": secrets.token_hex(8)}
    head = {**key, "Content-Type": "multipart/form-data; boundary=x"}
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.tif"\r\n\r\n'
        # more than all sockets hold: the body is being read, so the key was taken
        for _ in range(32):
            yield bytes(1 << 20)
        begun.set()
        go_on.wait(60)
        yield b"\r\n--x--\r\n"

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(api.post, "/upload", content=slowly(), headers=head)
        assert begun.wait(60)
        refused = api.post("/upload", files=files(("a.tif", b"a")), headers=key)
        go_on.set()
        assert first.result().status_code == 202
    is_problem(refused, 409, Reason.CONFLICT)
    assert int(refused.headers["retry-after"]) > 0


async def test_put_images_one_by_one(door: Any, api: httpx.Client) -> None:
    """PUT again: one image; other bytes: 409; sealed: no more; the seal counts."""
    job_id = fresh()
    made = api.post("/jobs", json={"job_id": job_id, "model": "blob@production"})
    assert made.status_code == 201 and made.json()["images"]["expected"] is None
    assert api.get(f"/jobs/{job_id}").json()["status"] == "accepted"
    big = secrets.token_bytes(9 << 20)
    for name, data in (("sub/a b.tif", b"aaa"), ("big.tif", big)):
        first = api.put(f"/jobs/{job_id}/images/{name}", content=data)
        assert first.status_code == 201 and first.json()["name"] == name, first.text
        again = api.put(f"/jobs/{job_id}/images/{name}", content=data)
        assert again.status_code == 200 and again.json()["image_id"] == first.json()["image_id"]
    other = api.put(f"/jobs/{job_id}/images/big.tif", content=b"other")
    is_problem(other, 409, Reason.CONFLICT)
    sealed = api.post(f"/jobs/{job_id}/seal")
    assert sealed.json()["images"]["expected"] == 2
    is_problem(api.put(f"/jobs/{job_id}/images/late.tif", content=b"x"), 409, Reason.JOB_CLOSED)
    assert api.put(f"/jobs/{job_id}/images/big.tif", content=big).status_code == 200
    is_problem(api.post(f"/jobs/{job_id}/seal", json={"size": 9}), 409, Reason.CONFLICT)
    events = await on_topic(door, job_id)
    assert len({e.event_id for e in events if isinstance(e, ImageUploaded)}) == 2
    assert {e.job_size for e in events if isinstance(e, JobSealed)} == {2}


def test_a_job_of_known_size_closes_itself(api: httpx.Client) -> None:
    """Created with its size, it takes that many images and no more."""
    job_id = fresh()
    assert api.post("/jobs", json={"job_id": job_id, "size": 2}).status_code == 201
    for n in range(2):
        assert api.put(f"/jobs/{job_id}/images/{n}.tif", content=b"x").status_code == 201
    full = api.put(f"/jobs/{job_id}/images/2.tif", content=b"x")
    is_problem(full, 409, Reason.JOB_CLOSED)


def _in_parts(api: httpx.Client) -> dict[str, Any]:
    """A job whose one image goes to the store in parts, with what can go wrong; how it was begun."""
    job_id = fresh()
    api.post("/jobs", json={"job_id": job_id})
    data = secrets.token_bytes((5 << 20) + 77)
    begun = api.post(
        f"/jobs/{job_id}/images/deep/huge.tif/multipart",
        json={"size": len(data), "part_size": 5 << 20},
    ).json()
    assert len(begun["part_urls"]) == 2
    parts = []
    for n, url in enumerate(begun["part_urls"]):
        piece = data[n * begun["part_size"] : (n + 1) * begun["part_size"]]
        put = httpx.put(url, content=piece)
        assert put.status_code == 200, put.text
        parts.append({"number": n + 1, "etag": put.headers["etag"]})
    wrong = [parts[0], {"number": 2, "etag": "0" * 32}]
    bad = api.post(begun["complete"], json={"upload_id": begun["upload_id"], "parts": wrong})
    is_problem(bad, 422, Reason.BAD_REQUEST)
    body = {"upload_id": begun["upload_id"], "parts": parts}
    done = api.post(begun["complete"], json=body)
    assert done.status_code == 201 and done.json()["size"] == len(data), done.text
    assert api.post(begun["complete"], json=body).status_code == 200
    assert api.post(f"/jobs/{job_id}/seal").json()["images"]["expected"] == 1
    return dict(begun)


def _signed_with(url: str) -> str:
    return dict(parse_qsl(url.partition("?")[2]))["X-Amz-Credential"].partition("/")[0]


def test_presigned_parts_go_straight_to_the_store(door: Any, api: httpx.Client) -> None:
    """Begin, PUT each part to MinIO, complete; completing again changes nothing."""
    for url in _in_parts(api)["part_urls"]:
        assert _signed_with(url) != door.env["FROND_S3_ACCESS_KEY"]


def test_parts_are_signed_with_the_installations_own_keys_where_it_says_so(
    stack: Endpoints, start_door: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    """For a store that lends none, as AWS S3: FROND_PRESIGN_WITH=own; all else is as it was."""
    with start_door(stack, tmp_path, FROND_PRESIGN_WITH="own") as door, door.client() as api:
        for url in _in_parts(api)["part_urls"]:
            assert _signed_with(url) == door.env["FROND_S3_ACCESS_KEY"]


async def test_the_address_of_a_part_is_good_for_nothing_else(
    door: Any, api: httpx.Client, store: ObjectStore
) -> None:
    """No other object can be read by it, as a copy, nor written, by a signature or by what MinIO takes
    without one from whoever knows an access key."""
    await store.put("jobs/victim/secret", b"secret" * 10)
    job_id = fresh()
    api.post("/jobs", json={"job_id": job_id})
    begun = api.post(f"/jobs/{job_id}/images/a b (1),+=@.tif/multipart", json={"size": 5})
    (url,) = begun.json()["part_urls"]
    where, _, query = url.partition("?")
    copied = httpx.put(url, headers={"x-amz-copy-source": f"/{door.bucket}/jobs/victim/secret"})
    assert (copied.status_code, "AccessDenied" in copied.text) == (403, True), copied.text
    other = f"{where.partition('/uploads/')[0]}/keys/0011.json"
    assert httpx.put(f"{other}?{query}", content=b"hello").status_code == 403
    unsigned = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "content-encoding": "aws-chunked",
        "x-amz-decoded-content-length": "5", "x-amz-trailer": "x-amz-checksum-crc32",
        "x-amz-date": "20261123T150000Z",
    }  # fmt: skip
    body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
    said = dict(parse_qsl(query))
    assert said["X-Amz-Credential"].partition("/")[0] != door.env["FROND_S3_ACCESS_KEY"]
    names = ("X-Amz-Credential", "X-Amz-Security-Token")
    for known in (names, names[:1]):
        wish = {k: v for k, v in said.items() if k in known}
        forged = httpx.put(other, params=wish, content=body, headers=unsigned)
        assert forged.status_code == 403, forged.text
    assert not await store.exists("keys/0011.json")
    assert httpx.put(url, content=b"hello").status_code == 200


def test_small_parts_of_a_large_image_are_made_larger(api: httpx.Client) -> None:
    """A short question is no thousands of URLs: a part has the size that the answer says."""
    job_id, size = fresh(), 50_000 << 20
    api.post("/jobs", json={"job_id": job_id})
    begun = api.post(
        f"/jobs/{job_id}/images/huge.tif/multipart", json={"size": size, "part_size": 5 << 20}
    ).json()
    assert len(begun["part_urls"]) == 1000
    assert begun["part_size"] == 50 << 20


async def test_start_with_a_prefix(door: Any, api: httpx.Client, store: ObjectStore) -> None:
    """All rasters under a prefix, nothing else, under names relative to it; sealed by itself."""
    for name in ("in/a.tif", "in/sub/b.TIFF", "in/c.jpg", "in/readme.txt", "other/d.tif"):
        await store.put(name, b"x")
    job_id = fresh()
    body = {"s3_url": f"s3://{door.bucket}/in/", "job_id": job_id, "email": "a@b.org"}
    answer = api.post("/start-job", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.json()["images"]["expected"] == 3
    images = [e for e in await on_topic(door, job_id) if isinstance(e, ImageUploaded)]
    assert {e.name for e in images} == {"a.tif", "sub/b.TIFF", "c.jpg"}
    one = api.post("/start-job", json={"s3_url": f"s3://{door.bucket}/in/a.tif"})
    assert one.json()["images"]["expected"] == 1


async def test_naming_objects(door: Any, api: httpx.Client, store: ObjectStore) -> None:
    """Objects in an allowed bucket join an open job; a missing one refuses the request."""
    await store.put("mine/a.tif", b"x")
    job_id = fresh()
    api.post("/jobs", json={"job_id": job_id})
    url, uri = f"/jobs/{job_id}/images", f"s3://{door.bucket}/mine/a.tif"
    for created in (True, False):
        added = api.post(url, json={"images": [{"image": uri, "name": "Scene A"}]})
        assert added.json()["images"][0]["created"] is created, added.text
    missing = api.post(url, json={"images": [f"s3://{door.bucket}/mine/none.tif"]})
    is_problem(missing, 422, Reason.OBJECT_MISSING)
    foreign = api.post(url, json={"images": ["s3://somewhere-else/x.tif"]})
    is_problem(foreign, 403, Reason.BUCKET_NOT_ALLOWED)
    assert api.post(f"{url[:-7]}/seal").json()["images"]["expected"] == 1


def test_bad_input_gets_problems(door: Any, api: httpx.Client) -> None:
    """Each mistake: its status, its reason, a sentence; never a stack trace."""
    bad = Reason.BAD_REQUEST
    for model in ("nobody", "blob@nothing", "../x", "blob@" + "0" * 64):
        is_problem(api.post("/jobs", json={"model": model}), 422, Reason.UNKNOWN_MODEL)
    form = files(("a.tif", b"x" * 100))
    is_problem(api.post("/upload", files=form, data={"model": "no"}), 422, Reason.UNKNOWN_MODEL)
    for field, value in (("score", "much"), ("score", "2"), ("webhook_url", "ftp://x"),
                         ("email", "me"), ("colour", "red")):  # fmt: skip
        is_problem(api.post("/upload", files=form, data={field: value}), 422, bad)
    is_problem(
        api.post("/upload", files=form, data={"job_id": "../../etc"}), 422, Reason.BAD_JOB_ID
    )
    is_problem(api.post("/upload", files=[("model", (None, "blob"))]), 400, bad)
    is_problem(api.post("/upload", json={}), 415, bad)
    cut = {"Content-Type": "multipart/form-data; boundary=x"}
    is_problem(api.post("/upload", content=b"--x\r\nnonsense", headers=cut), 400, bad)
    is_problem(api.post("/jobs", json={"size": "many"}), 422, bad)
    is_problem(api.post("/jobs", json={"sise": 3}), 422, bad)
    is_problem(
        api.post("/jobs", content=b"{", headers={"Content-Type": "application/json"}), 422, bad
    )
    for url in ("http://x/y.tif", "s3://", "s3://UPPER/x", "s3:///x"):
        is_problem(api.post("/start-job", json={"s3_url": url}), 422, Reason.BAD_IMAGE_URI)
    huge = b'{"model": "' + b"x" * (65 << 10) + b'"}'
    json_type = {"Content-Type": "application/json"}
    is_problem(api.post("/jobs", content=huge, headers=json_type), 413, Reason.TOO_LARGE)
    away = api.post("/start-job", json={"s3_url": "s3://not-ours/x.tif"})
    is_problem(away, 403, Reason.BUCKET_NOT_ALLOWED)
    gone = api.post("/start-job", json={"s3_url": f"s3://{door.bucket}/none.tif"})
    is_problem(gone, 422, Reason.OBJECT_MISSING)
    is_problem(api.get("/jobs/none"), 404, Reason.NOT_FOUND)
    is_problem(api.get("/status/none"), 404, Reason.NOT_FOUND)
    is_problem(api.get("/nowhere"), 404, Reason.NOT_FOUND)
    is_problem(api.patch("/jobs"), 405, bad)
    is_problem(api.get("/jobs?status=odd"), 422, bad)
    is_problem(api.get("/jobs?cursor=odd"), 422, bad)
    is_problem(api.put("/jobs/none/images/a.tif", content=b"x"), 404, Reason.NOT_FOUND)
    is_problem(api.post("/jobs/none/cancel"), 404, Reason.NOT_FOUND)


def test_the_key_is_asked_for(door: Any) -> None:
    """Jobs need the key; health, metrics, documentation and the page do not."""
    with httpx.Client(base_url=door.url) as anyone:
        for path in ("/jobs", "/status/x", "/models"):
            answer = anyone.get(path)
            is_problem(answer, 401, Reason.UNAUTHORIZED)
            assert answer.headers["www-authenticate"] == "Bearer"
        wrong = anyone.get("/jobs", headers={"Authorization": "Bearer nö".encode("latin-1")})
        is_problem(wrong, 401, Reason.UNAUTHORIZED)
        for path in ("/", "/health", "/ready", "/metrics", "/docs", "/openapi.json"):
            assert anyone.get(path).status_code == 200
        assert "<html" in anyone.get("/").text
        links = anyone.get("/", headers={"Accept": "application/json"}).json()["links"]
        assert {"jobs", "service-desc"} <= {link["rel"] for link in links}
        assert anyone.post("/upload", files=files(("a", b"x"))).status_code == 401


def test_models_are_listed(api: httpx.Client) -> None:
    body = api.get("/models").json()
    assert body["default"] == "blob" and body["models"][0]["name"] == "blob"


def test_a_trace_goes_through(api: httpx.Client) -> None:
    """The caller's trace id is in the answer, errors included."""
    trace = "ab" * 16
    headers = {"traceparent": f"00-{trace}-{'cd' * 8}-01"}
    answer = api.get("/jobs/none", headers=headers)
    assert answer.json()["trace_id"] == trace and trace in answer.headers["traceparent"]
