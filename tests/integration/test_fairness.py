"""A small job is not made to wait for a big one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from frond.bus import EventProducer, Outgoing
from frond.contracts import topics
from frond.contracts.events import ImageUploaded, JobCancelled
from frond.store import ObjectStore
from support.kafka import completed, reading
from support.planted import planted
from support.services import Services, open_store, prepare

pytestmark = [pytest.mark.stack, pytest.mark.slow]

BIG, SMALL = 1000, 10
KINDS = 20


async def submit(frond: Services, store: ObjectStore, job_id: str, images: int) -> None:
    """Send a job's images at the topic's door: copies of a few scenes under names of their own."""
    scenes = [planted("x.tif", i).data for i in range(KINDS)]
    at_once = asyncio.Semaphore(16)

    async def put(i: int) -> None:
        async with at_once:
            await store.put(f"{job_id}/{i:04d}.tif", scenes[i % KINDS])

    await asyncio.gather(*(put(i) for i in range(images)))
    producer = EventProducer(
        frond.env["FROND_KAFKA_BOOTSTRAP"], frond.env["FROND_TOPIC_PREFIX"], "/test"
    )
    await producer.start()
    try:
        await producer.send([
            Outgoing(topics.UPLOADED, ImageUploaded(
                job_id=job_id, image=store.uri(f"{job_id}/{i:04d}.tif"), job_size=images))
            for i in range(images)
        ])  # fmt: skip
    finally:
        await producer.stop()


async def test_ten_images_behind_a_thousand(frond: Services, store: ObjectStore) -> None:
    """Two jobs at once, the big one first: the small one's completed event comes while no more
    than a fifth of the big one's images are done, and all of the small one's are."""
    await submit(frond, store, "big", BIG)
    await submit(frond, store, "small", SMALL)
    async with reading(frond.env, topics.COMPLETED) as consumer:
        async for message in consumer:
            event = json.loads(message.value)
            if event["job_id"] in {"small", "big"}:
                break
    assert event["job_id"] == "small"
    assert event["images"] == {"expected": SMALL, "completed": SMALL, "failed": 0}
    done = 0
    async for found in store.list("jobs/big/images/"):
        done += found.key.endswith("/outcome.json")
    assert done <= BIG // 5, f"{done} of the big job's images were done first"
    producer = EventProducer(
        frond.env["FROND_KAFKA_BOOTSTRAP"], frond.env["FROND_TOPIC_PREFIX"], "/test"
    )
    await producer.start()
    await producer.send(Outgoing(topics.UPLOADED, JobCancelled(job_id="big")))
    await producer.stop()


async def planned(store: ObjectStore, job_id: str) -> int:
    """How many images of a job have a plan."""
    count = 0
    async for found in store.list(f"jobs/{job_id}/images/"):
        count += found.key.endswith("/plan.json")
    return count


async def test_planning_waits_for_inference_and_small_jobs_do_not_wait_for_it(
    service_env: dict[str, str], make_services: Any, tmp_path: Path
) -> None:
    """With inference away and a backlog of 40 chunks allowed, a job of 200 images is planned to 40
    and what was in hand; one of 3 images that comes then is planned. With inference back, both
    end."""
    bound, in_hand = 40, 8
    env = {**service_env, "FROND_DEFAULT_MODEL": "blob", "FROND_TILED_BACKLOG": str(bound),
           "FROND_TILER_IMAGES": str(in_hand)}  # fmt: skip
    store = open_store(env)
    await prepare(env, store, tmp_path / "blob")
    services = make_services(env, "backlog")
    services.start("tiler", "aggregator")
    await services.ready()
    await submit(services, store, "big", 200)
    async with reading(env, topics.TILED) as consumer:
        for _ in range(bound):
            await consumer.getone()
        await submit(services, store, "small", 3)
        jobs: list[str] = []
        while jobs.count("small") < 3:
            jobs.append(json.loads((await consumer.getone()).value)["job_id"])
    # what the tiler had not sent when the bound was reached it had in hand
    assert await planned(store, "big") <= bound + in_hand
    services.start("inference")
    assert (await completed(env, "small"))["images"]["completed"] == 3
    assert (await completed(env, "big"))["images"]["completed"] == 200
    store.close()
