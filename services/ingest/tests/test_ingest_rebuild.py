"""What must come back of jobs when neither the database nor the topics have them: from objects."""

# ruff: noqa: ASYNC212 (the loop has nothing else to do while a request is answered)
from __future__ import annotations

import asyncio
import json
import secrets
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frond.contracts import keys
from frond.contracts.events import Event, ImageUploaded, JobCompleted
from frond.contracts.ids import chunk_id, image_id
from frond.contracts.jobs import (
    Artifact,
    ImageCounts,
    ImageFailure,
    ImageOutcome,
    ImageStatus,
    JobOutcome,
    JobSpec,
    JobStatus,
    ModelRef,
    WindowCounts,
)
from frond.contracts.plan import ImagePlan, RasterSource, WindowGrid
from frond.contracts.reasons import Reason
from frond.ingest.readmodel.apply import ImageRecorded, apply, close
from frond.ingest.readmodel.objects import _progress
from frond.ingest.readmodel.rows import Batch
from frond.store import ObjectStore
from support.waiting import until

stack = pytest.mark.stack
MODEL = ModelRef(name="blob", digest="b" * 64, version="1")
T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
T1 = datetime(2026, 1, 2, 3, 9, 5, tzinfo=UTC)
COUNTS = WindowCounts(total=9, done=7, skipped=2)


def uri(job_id: str, n: int) -> str:
    return f"s3://frond/{job_id}/{n}.tif"


def outcome(job_id: str, n: int, *, failed: bool = False) -> ImageOutcome:
    return ImageOutcome(
        job_id=job_id, image_id=image_id(job_id, uri(job_id, n)), image=uri(job_id, n),
        name=f"{n}.tif", status=ImageStatus.FAILED if failed else ImageStatus.COMPLETED,
        reason=Reason.CORRUPT if failed else None, detail="It is damaged." if failed else None,
        windows=WindowCounts() if failed else COUNTS, detections={} if failed else {"palm": n + 1},
    )  # fmt: skip


def planned(job_id: str, n: int) -> ImagePlan:
    """12 windows in blocks of 4; the first block is skipped whole."""
    return ImagePlan(
        job_id=job_id, image_id=image_id(job_id, uri(job_id, n)), image=uri(job_id, n),
        name=f"{n}.tif",
        source=RasterSource(uri=uri(job_id, n), etag="e", size=1, bands=(1,), dtype="uint8",
                            width=400, height=300),
        grid=WindowGrid(width=400, height=300, size=100, margin=0), model=MODEL,
        windows_per_chunk=4, skipped=_bitmap({0, 1, 4, 5}),
        windows_skipped=4, chunks=3,
    )  # fmt: skip


def _bitmap(windows: set[int]) -> str:
    import base64
    import zlib

    bits = sum(1 << i for i in windows).to_bytes(2, "little")
    return base64.b64encode(zlib.compress(bits)).decode()


async def put(store: ObjectStore, key: str, value: Any) -> None:
    body = value.model_dump_json() if hasattr(value, "model_dump_json") else json.dumps(value)
    await store.put(key, body.encode(), "application/json")


async def ended_job(store: ObjectStore, job_id: str) -> None:
    """Three images, one of them failed."""
    await put(store, keys.job_spec(job_id), JobSpec(job_id=job_id, model=MODEL, created=T0))
    await put(store, keys.job_sealed(job_id), {"job_size": 3})
    for n in range(3):
        o = outcome(job_id, n, failed=n == 2)
        await put(store, keys.image_outcome(job_id, o.image_id), o)
    done = JobCompleted(
        job_id=job_id, status=JobStatus.SUCCESSFUL, outcome=JobOutcome.COMPLETED_WITH_ERRORS,
        images=ImageCounts(expected=3, completed=2, failed=1),
        windows=WindowCounts(total=18, done=14, skipped=4), detections={"palm": 3},
        failures=(ImageFailure(name="2.tif", image=uri(job_id, 2), reason=Reason.CORRUPT,
                               detail="It is damaged."),),
        artifacts=(Artifact(name="coco.json", uri=store.uri(keys.result(job_id, "coco.json")),
                            media_type="application/json", size=2, sha256="0" * 64),),
        model=MODEL, started=T0, finished=T1,
    )  # fmt: skip
    await put(store, keys.job_completed(job_id), done)


async def open_job(store: ObjectStore, job_id: str) -> None:
    """Four images: one done, one with a chunk of three, one recorded only, one refused."""
    await store.put(keys.open_marker(job_id), b"")
    await put(store, keys.job_spec(job_id), JobSpec(job_id=job_id, model=MODEL, created=T0))
    await put(store, keys.job_sealed(job_id), {"job_size": 4})
    o = outcome(job_id, 0)
    await put(store, keys.image_outcome(job_id, o.image_id), o)
    plan = planned(job_id, 1)
    await put(store, keys.image_plan(job_id, plan.image_id), plan)
    chunk = chunk_id(plan.image_id, plan.plan_digest, 1)
    await store.put(keys.chunk_result(job_id, plan.image_id, chunk), b"arrow")
    for n in range(3):
        event = ImageUploaded(job_id=job_id, image=uri(job_id, n), name=f"{n}.tif")
        await put(store, keys.job_input_record(job_id, event.image_id), event)
    no = {
        "job_id": job_id, "image_id": image_id(job_id, "odd"), "image": "odd", "name": "odd",
        "reason": Reason.BAD_IMAGE_URI.value, "detail": "no",
    }  # fmt: skip
    await put(store, keys.job_refused_record(job_id, str(no["image_id"])), no)


def wipe(door: Any) -> None:
    door.kill(signal.SIGKILL)
    for file in Path(door.env["DATABASE_PATH"]).parent.glob("ingest.db*"):
        file.unlink()


@stack
async def test_jobs_that_no_topic_tells_of(
    door: Any, api: httpx.Client, store: ObjectStore
) -> None:
    """An empty database and topics that tell nothing: jobs and images as the objects have them."""
    if door.env["FROND_DATABASE_URL"]:
        pytest.skip("the file is what is deleted")
    ended, running, gone, orphan = (f"job-{secrets.token_hex(4)}" for _ in range(4))
    wipe(door)
    await ended_job(store, ended)
    await open_job(store, running)
    await ended_job(store, gone)
    await store.put(keys.tombstone(gone), b"")
    # an upload that broke off leaves this much
    await put(store, keys.job_spec(orphan), JobSpec(job_id=orphan, model=MODEL, created=T0))
    door.start()

    # asked for by its id, a job is right from the first moment
    body = api.get(f"/jobs/{ended}").json()
    assert (body["status"], body["outcome"]) == ("successful", "completed_with_errors")
    assert body["images"] == {
        "expected": 3, "received": 3, "running": 0, "completed": 2, "failed": 1,
    }  # fmt: skip
    assert body["created"] == body["started"] == "2026-01-02T03:04:05Z"
    assert body["updated"] == body["finished"] == "2026-01-02T03:09:05Z"
    assert body["model"]["digest"] == MODEL.digest and body["detections"] == {"palm": 3}
    assert [f["name"] for f in body["failures"]] == ["2.tif"]
    results = api.get(f"/jobs/{ended}/results").json()["results"]
    assert [r["name"] for r in results] == ["coco.json"]

    def images_of(job_id: str) -> Any:
        return {i["name"]: i for i in api.get(f"/jobs/{job_id}/images").json()["images"]}

    found = until(lambda: (i := images_of(ended)) and len(i) == 3 and i)
    assert [i["status"] for i in found.values()] == ["completed", "completed", "failed"]
    assert found["1.tif"]["detections"] == {"palm": 2} and found["1.tif"]["windows"]["done"] == 7
    assert found["2.tif"]["reason"] == "corrupt"

    found = until(lambda: (i := images_of(running)) and len(i) == 4 and i)
    # what was recorded and is nowhere else is sent by the sweeper; nobody here takes it further
    assert {n: i["status"] for n, i in found.items()} == {
        "0.tif": "completed", "1.tif": "running", "2.tif": "uploaded", "odd": "failed",
    }  # fmt: skip
    assert found["1.tif"]["windows"] == {"total": 12, "done": 2, "skipped": 4, "failed": 0}
    body = api.get(f"/jobs/{running}").json()
    assert body["status"] == "running" and body["images"]["expected"] == 4

    listed = {j["job_id"] for j in api.get("/jobs?limit=1000").json()["jobs"]}
    assert {ended, running} <= listed and not {gone, orphan} & listed
    for job_id in (gone, orphan):
        assert api.get(f"/jobs/{job_id}").status_code == 404


@stack
async def test_what_was_recorded_is_sent_to_a_broker_that_never_saw_it(
    door: Any, api: httpx.Client, store: ObjectStore
) -> None:
    """A job that is whole in the read model, but for the sending of an image: it is sent."""
    if door.env["FROND_DATABASE_URL"]:
        pytest.skip("the file is what is deleted")
    job_id = f"job-{secrets.token_hex(4)}"
    wipe(door)
    await open_job(store, job_id)
    door.start()
    image = image_id(job_id, uri(job_id, 2))
    from aiokafka import AIOKafkaConsumer

    from frond.contracts import topics

    consumer = AIOKafkaConsumer(
        topics.UPLOADED.named(door.env["FROND_TOPIC_PREFIX"]),
        bootstrap_servers=door.env["FROND_KAFKA_BOOTSTRAP"], auto_offset_reset="earliest",
        enable_auto_commit=False,
    )  # fmt: skip
    await consumer.start()
    try:
        async with asyncio.timeout(60):
            async for message in consumer:
                event = json.loads(message.value)
                ours = event["job_id"] == job_id and "image" in event
                if ours and image_id(job_id, event["image"]) == image:
                    return
    finally:
        await consumer.stop()


def test_the_blocks_of_a_plan() -> None:
    """A chunk's windows are those of its block that are not skipped; empty blocks have no chunk."""
    plan = planned("j", 1)
    names = [chunk_id(plan.image_id, plan.plan_digest, n) for n in range(3)]
    events: list[Event] = list(_progress(plan, set(names)))[1:]
    assert [(e.ordinal, e.windows.total) for e in events] == [(0, 4), (1, 2), (2, 2)]  # type: ignore[attr-defined]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_objects_and_events_in_any_order(data: st.DataObject) -> None:
    """What objects tell beside the topics changes nothing, and never leads back."""
    from frond.contracts.events import ImageFinished

    plan = planned("j", 1)
    told = [
        ImageUploaded(job_id="j", image=uri("j", 1), name="1.tif"),
        *_progress(plan, {chunk_id(plan.image_id, plan.plan_digest, n) for n in range(3)}),
        ImageFinished(job_id="j", outcome=outcome("j", 1), model=MODEL),
    ]
    objects = [
        ImageRecorded(job_id="j", image=uri("j", 1), name="1.tif"),
        *_progress(plan, {chunk_id(plan.image_id, plan.plan_digest, 1)}),
        ImageFinished(job_id="j", outcome=outcome("j", 1)),
    ]

    def play(events: list[Event]) -> tuple[Any, ...]:
        batch = Batch()
        for event in events:
            apply(batch, event, 1000)
        close(batch)
        job = batch.jobs["j"]
        (row,) = batch.images.values()
        return (
            row.status, row.uploaded, row.w_total, row.w_done, row.detections,
            job.seen, job.completed, job.w_done, job.detections, job.status, job.model_digest,
        )  # fmt: skip

    assert play(data.draw(st.permutations([*told, *objects]))) == play(told)
