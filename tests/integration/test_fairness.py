"""A small job is not made to wait for a big one."""

from __future__ import annotations

import asyncio
import json

import pytest

from frond.bus import EventProducer, Outgoing
from frond.contracts import topics
from frond.contracts.events import ImageUploaded, JobCancelled
from frond.store import ObjectStore
from support.kafka import reading
from support.planted import planted
from support.services import Services

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(120, func_only=True)]

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
