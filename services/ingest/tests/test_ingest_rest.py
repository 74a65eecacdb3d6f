"""The REST door on the real Kafka and MinIO, with SQLite and with PostgreSQL."""

# ruff: noqa: ASYNC212 (the loop has nothing else to do while a request is answered)
from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from frond.bus import EventProducer, Outgoing
from frond.contracts import keys, topics
from frond.contracts.envelope import decode
from frond.contracts.events import (
    Event,
    ImageFinished,
    ImageRejected,
    ImageUploaded,
    JobCancelled,
    JobCompleted,
    JobSealed,
)
from frond.contracts.ids import image_id
from frond.contracts.jobs import (
    Artifact,
    ImageCounts,
    ImageOutcome,
    ImageStatus,
    JobOutcome,
    JobStatus,
    ModelRef,
    WindowCounts,
)
from frond.contracts.reasons import Reason
from frond.store import ObjectStore

pytestmark = pytest.mark.stack


def until(look: Any, seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {look()!r}")


def fresh() -> str:
    return f"job-{secrets.token_hex(4)}"


def files(*named: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [(f"f{n}", item) for n, item in enumerate(named)]


async def on_topic(door: Any, job_id: str) -> Sequence[Event]:
    """All events of a job on the uploaded topic, up to its end of now."""
    env = door.env
    name = topics.UPLOADED.named(env["FROND_TOPIC_PREFIX"])
    consumer = AIOKafkaConsumer(bootstrap_servers=env["FROND_KAFKA_BOOTSTRAP"], group_id=None)
    await consumer.start()
    try:
        parts = [TopicPartition(name, p) for p in consumer.partitions_for_topic(name) or ()]
        if not parts:
            await consumer._client.force_metadata_update()
            parts = [TopicPartition(name, p) for p in range(topics.UPLOADED.partitions)]
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        ends = await consumer.end_offsets(parts)
        out: list[Event] = []
        while any([await consumer.position(p) < ends[p] for p in parts]):
            for messages in (await consumer.getmany(timeout_ms=200)).values():
                out += [decode(topics.UPLOADED, m.value, m.headers).event for m in messages]
        return [e for e in out if e.job_id == job_id]
    finally:
        await consumer.stop()


def is_problem(answer: httpx.Response, status: int, reason: Reason) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["reason"] == reason.value and body["status"] == status
    assert len(body["trace_id"]) == 32 and "Traceback" not in answer.text
    assert {"type", "title", "detail", "instance"} <= set(body)
    return dict(body)


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
        yield b"a" * 70_000
        begun.set()
        go_on.wait(30)
        yield b"\r\n--x--\r\n"

    with ThreadPoolExecutor(1) as pool:
        first = [pool.submit(api.post, "/upload", content=slowly(), headers=head)]
        assert begun.wait(30)
        # a form that fails leaves the key free
        empty = [("model", (None, "blob"))]
        refused: list[httpx.Response] = []

        def in_use() -> bool:
            if first[-1].done():  # overtaken on its way: it was refused itself
                first.append(pool.submit(api.post, "/upload", content=slowly(), headers=head))
                time.sleep(0.2)
            refused.append(api.post("/upload", files=empty, headers=key))
            return refused[-1].status_code == 409 and not first[-1].done()

        until(in_use)
        assert refused[-1].headers["retry-after"]
        go_on.set()
        assert first[-1].result().status_code == 202


def test_limits_are_told(stack: Any, tmp_path: Path, start_door: Any) -> None:
    """Too large: 413. Too many: 422. Each names the limit; nothing is left in the store."""
    limits = {"FROND_MAX_FILES": "2", "FROND_MAX_FILE_BYTES": "1000"}
    with start_door(stack, tmp_path, **limits) as door, door.client() as api:
        large = api.post("/upload", files=files(("a.tif", b"x" * 1001)))
        assert "1000" in is_problem(large, 413, Reason.TOO_LARGE)["detail"]
        many = api.post("/upload", files=files(*((f"{n}.tif", b"x") for n in range(3))))
        assert "2" in is_problem(many, 422, Reason.TOO_MANY)["detail"]
        job = api.post("/jobs", json={}).json()["job_id"]
        put = api.put(f"/jobs/{job}/images/a.tif", content=b"x" * 1001)
        is_problem(put, 413, Reason.TOO_LARGE)
        streamed = api.put(f"/jobs/{job}/images/a.tif", content=iter([b"x" * 1001]))
        is_problem(streamed, 413, Reason.TOO_LARGE)
        for n in range(2):
            assert api.put(f"/jobs/{job}/images/{n}.tif", content=b"x").status_code == 201
        is_problem(api.put(f"/jobs/{job}/images/9.tif", content=b"x"), 422, Reason.TOO_MANY)
        left = list(door.store().s3.list_objects(door.bucket, "uploads/u-", recursive=True))
        assert left == []


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


def test_presigned_parts_go_straight_to_the_store(api: httpx.Client) -> None:
    """Begin, PUT each part to MinIO, complete; completing again changes nothing."""
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
    huge = b'{"model": "' + b"x" * (9 << 20) + b'"}'
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


MODEL = ModelRef(name="blob", digest="b" * 64, version="1")


def completed(job_id: str, store: ObjectStore, size: int) -> JobCompleted:
    key = keys.result(job_id, "coco.json")
    return JobCompleted(
        job_id=job_id, status=JobStatus.SUCCESSFUL, outcome=JobOutcome.COMPLETED_WITH_ERRORS,
        images=ImageCounts(expected=2, completed=1, failed=1),
        windows=WindowCounts(total=4, done=4), detections={"blob": 7}, model=MODEL,
        artifacts=(Artifact(name="coco.json", uri=store.uri(key), media_type="application/json",
                            size=size, sha256="0" * 64),),
        started=datetime.now(UTC), finished=datetime.now(UTC),
    )  # fmt: skip


async def run_job(
    job_id: str, api: httpx.Client, store: ObjectStore, send: EventProducer
) -> list[str]:
    """Play the pipeline behind a job of two images; returns their ids."""
    api.post("/upload", data={"job_id": job_id}, files=files(("good.tif", b"g"), ("bad.tif", b"b")))
    records = [
        json.loads(await store.get(o.key)) async for o in store.list(keys.job_inputs(job_id))
    ]
    by_name = {r["name"]: r["image"] for r in records}
    ids = {n: image_id(job_id, u) for n, u in by_name.items()}
    rejected = ImageRejected(
        job_id=job_id, image_id=ids["bad.tif"], image=by_name["bad.tif"], name="bad.tif",
        reason=Reason.NOT_A_RASTER, detail="This is no raster.",
    )  # fmt: skip
    done = ImageFinished(
        job_id=job_id, model=MODEL,
        outcome=ImageOutcome(
            job_id=job_id, image_id=ids["good.tif"], image=by_name["good.tif"], name="good.tif",
            status=ImageStatus.COMPLETED, windows=WindowCounts(total=4, done=4),
            detections={"blob": 7},
        ),
    )  # fmt: skip
    data = json.dumps({"images": list(range(2000))}).encode()
    await store.put(keys.result(job_id, "coco.json"), data, "application/json")
    await store.put(keys.image_artifact(job_id, ids["good.tif"], "coco.json"), b"{}")
    await send.send([Outgoing(topics.DETECTED, rejected), Outgoing(topics.IMAGED, done)])
    await send.send(Outgoing(topics.COMPLETED, completed(job_id, store, len(data))))
    return [ids["good.tif"], ids["bad.tif"]]


async def test_from_events_to_status_and_results(
    door: Any, api: httpx.Client, store: ObjectStore, send: EventProducer
) -> None:
    """What the topics tell is what /status shows; results come with ranges, ETags and HEAD."""
    job_id = fresh()
    good, bad = await run_job(job_id, api, store, send)
    until(lambda: api.get(f"/jobs/{job_id}").json()["status"] == "successful")
    until(lambda: api.get(f"/jobs/{job_id}/images?status=failed").json()["images"])
    status = api.get(f"/status/{job_id}").json()
    assert status == api.get(f"/jobs/{job_id}").json()
    assert status["outcome"] == "completed_with_errors" and status["progress"] == 100
    assert status["images"] == {
        "expected": 2, "received": 2, "running": 0, "completed": 1, "failed": 1,
    }  # fmt: skip
    assert status["detections"] == {"blob": 7}
    (artifact,) = status["artifacts"]
    rels = {link["rel"] for link in status["links"]}
    assert {"self", "results", "events"} <= rels
    whole = api.get(artifact["url"])
    assert whole.status_code == 200 and whole.json() == {"images": list(range(2000))}
    assert whole.headers["content-type"].startswith("application/json")
    assert "coco.json" in whole.headers["content-disposition"]
    part = api.get(artifact["url"], headers={"Range": "bytes=3-9"})
    assert part.status_code == 206 and part.content == whole.content[3:10]
    assert part.headers["content-range"] == f"bytes 3-9/{len(whole.content)}"
    tail = api.get(artifact["url"], headers={"Range": "bytes=-5"})
    assert tail.content == whole.content[-5:]
    beyond = api.get(artifact["url"], headers={"Range": "bytes=999999-"})
    assert beyond.headers["content-range"] == f"bytes */{len(whole.content)}"
    is_problem(beyond, 416, Reason.BAD_REQUEST)
    same = api.get(artifact["url"], headers={"If-None-Match": whole.headers["etag"]})
    assert same.status_code == 304
    head = api.head(artifact["url"])
    assert head.status_code == 200 and int(head.headers["content-length"]) == len(whole.content)
    listed = api.get(f"/jobs/{job_id}/results").json()["results"]
    assert [r["name"] for r in listed] == ["coco.json"]
    for image in (good, "good.tif"):
        assert api.get(f"/jobs/{job_id}/results/images/{image}/coco.json").content == b"{}"
        there = api.get(f"/jobs/{job_id}/results/images/{image}/").json()["files"]
        assert [f["name"] for f in there] == ["coco.json"]
    for name in ("none.json", "../job.json", "images/none/coco.json", "images/good.tif/../x"):
        missing = api.get(f"{door.url}/jobs/{job_id}/results/{name.replace('..', '%2e%2e')}")
        assert missing.status_code == 404
    failed = api.get(f"/jobs/{job_id}/images?status=failed").json()["images"]
    assert [(i["image_id"], i["reason"]) for i in failed] == [(bad, "not-a-raster")]
    is_problem(api.post(f"/jobs/{job_id}/cancel"), 409, Reason.CONFLICT)


async def test_live_events_resume(
    api: httpx.Client, store: ObjectStore, send: EventProducer
) -> None:
    """A stream ends with the job; a reader that comes back misses nothing and repeats nothing."""
    job_id = fresh()
    api.post("/jobs", json={"job_id": job_id})

    def read(last: str | None, stop_after: int | None = None) -> list[tuple[str, str]]:
        headers = {"Last-Event-ID": last} if last else {}
        seen: list[tuple[str, str]] = []
        current: dict[str, str] = {}
        with api.stream("GET", f"/jobs/{job_id}/events", headers=headers) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            for line in stream.iter_lines():
                if line.startswith(":"):
                    current["heartbeat"] = line
                elif line:
                    field, _, value = line.partition(": ")
                    current[field] = value
                elif "event" in current:
                    seen.append((current["id"], current["event"]))
                    current = {}
                    if stop_after and len(seen) == stop_after:
                        return seen
        return seen

    with api.stream("GET", f"/jobs/{job_id}/events") as quiet:
        for line in quiet.iter_lines():
            if line.startswith(":"):
                break  # a heartbeat keeps an idle stream open
    reading = asyncio.create_task(asyncio.to_thread(read, None, 1))
    first_uri = store.uri("x/0.tif")
    await send.send(Outgoing(topics.UPLOADED, ImageUploaded(job_id=job_id, image=first_uri)))
    first = await reading
    reading = asyncio.create_task(asyncio.to_thread(read, first[-1][0]))
    out = ImageOutcome(
        job_id=job_id, image_id=image_id(job_id, first_uri), image=first_uri, name="0.tif",
        status=ImageStatus.COMPLETED,
    )  # fmt: skip
    finished = ImageFinished(job_id=job_id, outcome=out)
    await send.send(Outgoing(topics.IMAGED, finished))
    until(lambda: api.get(f"/jobs/{job_id}").json()["images"]["completed"] == 1)
    done = completed(job_id, store, 1).model_copy(
        update={"images": ImageCounts(expected=1, completed=1), "outcome": JobOutcome.COMPLETED}
    )
    await send.send(Outgoing(topics.COMPLETED, done))
    rest = await asyncio.wait_for(reading, 30)
    kinds = [kind for _, kind in rest]
    assert kinds[-1] == "completed" and kinds.count("image") == 1
    numbers = [int(n) for n, _ in first + rest]
    assert numbers == sorted(set(numbers))
    # late readers get the same end; a number of another database starts from the beginning
    assert read(None)[-1][1] == "completed"
    assert read("99999999")[-1][1] == "completed"
    # 204 tells an EventSource that there is nothing to come back for
    end = api.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": rest[-1][0]})
    assert end.status_code == 204 and end.content == b""


async def test_cancel_and_delete(
    door: Any, api: httpx.Client, store: ObjectStore, send: EventProducer
) -> None:
    """Cancelled: marked, told, dismissed. Deleted: no object, no row, and no way back."""
    job_id = fresh()
    api.post("/upload", data={"job_id": job_id}, files=files(("a.tif", b"a")))
    answer = api.post(f"/jobs/{job_id}/cancel")
    assert answer.status_code == 200 and answer.json()["status"] == "dismissed"
    assert await store.exists(keys.job_cancelled(job_id))
    assert any(isinstance(e, JobCancelled) for e in await on_topic(door, job_id))
    assert api.post(f"/jobs/{job_id}/cancel").status_code == 200
    uploads = [o.key async for o in store.list(keys.UPLOADS)]
    over = JobCompleted(
        job_id=job_id, status=JobStatus.DISMISSED, outcome=JobOutcome.DISMISSED,
        images=ImageCounts(expected=1), windows=WindowCounts(), detections={},
    )  # fmt: skip
    await send.send(Outgoing(topics.COMPLETED, over))
    until(lambda: api.get(f"/jobs/{job_id}").json()["outcome"] == "dismissed")
    assert api.delete(f"/jobs/{job_id}").status_code == 204
    is_problem(api.get(f"/jobs/{job_id}"), 404, Reason.NOT_FOUND)
    # what is left tells a late worker that there is nothing to do
    left = [o.key async for o in store.list(keys.job_prefix(job_id))]
    assert left == [keys.job_cancelled(job_id)]
    assert not await store.exists(keys.open_marker(job_id))
    assert len([o async for o in store.list(keys.UPLOADS)]) == len(uploads) - 1
    is_problem(api.post("/jobs", json={"job_id": job_id}), 409, Reason.CONFLICT)
    assert job_id not in {j["job_id"] for j in api.get("/jobs?limit=1000").json()["jobs"]}


async def test_jobs_of_the_topic_alone_are_seen(
    api: httpx.Client, store: ObjectStore, send: EventProducer
) -> None:
    """A program that only publishes finds its job here; pages and filters hold for it."""
    made = [fresh() for _ in range(3)]
    since = datetime.now(UTC).isoformat()
    for job_id in made:
        event = ImageUploaded(job_id=job_id, image=store.uri("x/a.tif"), job_size=5)
        await send.send(Outgoing(topics.UPLOADED, event))
    until(lambda: all(api.get(f"/jobs/{j}").status_code == 200 for j in made))
    seen: list[str] = []
    params: dict[str, Any] = {"since": since, "limit": 2, "status": "accepted"}
    while True:
        page = api.get("/jobs", params=params).json()
        seen += [j["job_id"] for j in page["jobs"]]
        if not page["next_cursor"]:
            break
        params["cursor"] = page["next_cursor"]
    assert set(made) == set(seen) and len(seen) == 3
    assert api.get("/jobs", params={"until": "2001-01-01T00:00:00Z"}).json()["jobs"] == []
    assert api.get(f"/jobs/{made[0]}").json()["images"]["expected"] == 5


def test_a_trace_goes_through(api: httpx.Client) -> None:
    """The caller's trace id is in the answer, errors included."""
    trace = "ab" * 16
    headers = {"traceparent": f"00-{trace}-{'cd' * 8}-01"}
    answer = api.get("/jobs/none", headers=headers)
    assert answer.json()["trace_id"] == trace and trace in answer.headers["traceparent"]
