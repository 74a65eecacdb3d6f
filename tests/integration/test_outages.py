"""The broker and the store die in the middle of a job: work waits, goes on, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from frond.bus import EventProducer, Outgoing
from frond.contracts import keys, topics
from frond.contracts.events import ImageUploaded
from support.kafka import completed, reading
from support.planted import planted
from support.services import open_store, prepare

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]

JOB = "through-the-storm"
IMAGES = 30


async def test_broker_and_store_killed_and_back(
    private_stack: Any, make_services: Any, tmp_path: Path
) -> None:
    """While the store is away ingest answers 503 with Retry-After; when both are back the job ends
    by itself, complete."""
    env = {
        **private_stack.endpoints.env(),
        "FROND_TOPIC_PREFIX": "",
        "FROND_S3_BUCKET": "frond",
        "FROND_DEFAULT_MODEL": "blob",
        "FROND_CACHE_DIR": str(tmp_path / "cache"),
        "DATABASE_PATH": str(tmp_path / "db.sqlite"),
        "FROND_RECONCILE_EVERY_S": "2",
        "FROND_STALL_S": "15",
    }
    store = open_store(env)
    await prepare(env, store, tmp_path / "blob")
    services = make_services(env, "logs")
    services.start()
    await services.ready()
    producer = EventProducer(env["FROND_KAFKA_BOOTSTRAP"], "", "/test")
    await producer.start()
    squares = 0
    for i in range(IMAGES):
        scene = planted(f"s-{i:03d}.tif", i, side=600, count=9)
        squares += len(scene.corners)
        await store.put(f"flight/{scene.name}", scene.data)
        event = ImageUploaded(job_id=JOB, image=store.uri(f"flight/{scene.name}"), job_size=IMAGES)
        await producer.send(Outgoing(topics.UPLOADED, event))
    await producer.stop()

    await _done(env, 3)
    await asyncio.to_thread(private_stack.kill_minio)
    async with httpx.AsyncClient(base_url=services.url("ingest"), timeout=120) as http:
        answer = await http.put("/jobs/other/images/a.tif", content=b"x" * 1000)
        if answer.status_code == 404:  # the job is made first
            answer = await http.post("/jobs", json={"job_id": "other"})
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["content-type"] == "application/problem+json"
    await asyncio.to_thread(private_stack.start_minio)
    await _done(env, 10)
    await asyncio.to_thread(private_stack.kill_kafka)
    await asyncio.to_thread(private_stack.start_kafka)

    event = await completed(env, JOB, within=300)
    assert event["images"] == {"expected": IMAGES, "completed": IMAGES, "failed": 0}
    assert sum(event["detections"].values()) == squares
    coco = json.loads(await store.get(keys.result(JOB, "coco.json")))
    assert len(coco["annotations"]) == squares
    store.close()


async def _done(env: dict[str, str], count: int) -> None:
    """Wait until this many images are done."""
    seen = set()
    async with reading(env, topics.IMAGED) as consumer, asyncio.timeout(240):
        async for message in consumer:
            seen.add(dict(message.headers)["ce_id"])
            if len(seen) >= count:
                return
