"""A job from its events to its results and its end, with SQLite and with PostgreSQL."""

# ruff: noqa: ASYNC212 (the loop has nothing else to do while a request is answered)
from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from ingest_world import files, fresh, is_problem, on_topic

from frond.bus import EventProducer, Outgoing
from frond.contracts import keys, topics
from frond.contracts.events import (
    ImageFinished,
    ImageRejected,
    ImageUploaded,
    JobCancelled,
    JobCompleted,
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
from support.waiting import until

pytestmark = pytest.mark.stack


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
    # the event has none: nobody measured them
    assert status["timings"] is None
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


async def test_a_name_of_several_images_is_answered_with_their_ids(
    api: httpx.Client, store: ObjectStore, send: EventProducer
) -> None:
    """Which one is meant cannot be told by the name: whoever asks is told what tells it. By their ids
    each gives its own."""
    job_id = fresh()
    uris = [f"s3://rasters/{folder}/ortho.tif" for folder in ("north", "south")]
    ids = [image_id(job_id, uri) for uri in uris]
    await send.send(
        [Outgoing(topics.UPLOADED, ImageUploaded(job_id=job_id, image=u)) for u in uris]
    )
    until(lambda: len(api.get(f"/jobs/{job_id}/images").json().get("images", ())) == 2)
    for ident in ids:
        await store.put(keys.image_artifact(job_id, ident, "coco.json"), ident.encode())
    for file in ("coco.json", ""):
        told = api.get(f"/jobs/{job_id}/results/images/ortho.tif/{file}")
        is_problem(told, 409, Reason.CONFLICT)
        assert all(part in told.json()["detail"] for part in (*ids, *uris))
    for ident in ids:
        answer = api.get(f"/jobs/{job_id}/results/images/{ident}/coco.json")
        assert answer.text == ident


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
    before = {o.key async for o in store.list(keys.UPLOADS)}
    api.post("/upload", data={"job_id": job_id}, files=files(("a.tif", b"a")))
    (mine,) = {o.key async for o in store.list(keys.UPLOADS)} - before
    answer = api.post(f"/jobs/{job_id}/cancel")
    assert answer.status_code == 200 and answer.json()["status"] == "dismissed"
    assert await store.exists(keys.job_cancelled(job_id))
    assert any(isinstance(e, JobCancelled) for e in await on_topic(door, job_id))
    assert api.post(f"/jobs/{job_id}/cancel").status_code == 200
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
    assert not await store.exists(mine)
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


def test_who_cancels_is_believed_at_once(api: httpx.Client) -> None:
    """Though the same process was told a moment ago that the job is not cancelled."""
    job = api.post("/jobs", json={}).json()["job_id"]
    assert api.put(f"/jobs/{job}/images/a.tif", content=b"a").status_code == 201
    assert api.post(f"/jobs/{job}/cancel").is_success
    is_problem(api.put(f"/jobs/{job}/images/b.tif", content=b"b"), 409, Reason.JOB_CLOSED)
