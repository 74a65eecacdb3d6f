"""SIGTERM in the middle of a job: what is in hand is finished or handed back, and the exit is 0."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import httpx
import pytest

from frond.bus import EventProducer, Outgoing
from frond.bus.offsets import Offsets
from frond.contracts import topics
from frond.contracts.events import ImageUploaded
from frond.store import ObjectStore
from support.kafka import completed, reading
from support.planted import planted
from support.services import NAMES, Services

pytestmark = [pytest.mark.stack, pytest.mark.slow]

IMAGES = 40
KEY = {"authorization": "Bearer test-key"}


async def terminate(frond: Services, *names: str) -> dict[str, int]:
    """SIGTERM to these at once; their exit codes."""
    processes = {name: frond.processes.pop(name) for name in names}
    for process in processes.values():
        process.send_signal(signal.SIGTERM)
    return {n: await asyncio.to_thread(p.wait, 120) for n, p in processes.items()}


async def handled(env: dict[str, str], topic: topics.Topic, count: int) -> None:
    """Wait until the topic holds this many events."""
    async with reading(env, topic) as consumer:
        for _ in range(count):
            await consumer.getone()


async def test_each_service_ends_with_its_work_done_or_handed_back(
    frond: Services, store: ObjectStore
) -> None:
    """Inference that is stopped has committed exactly the chunks whose results are stored; so have
    all five when they are stopped at once; started again, they end the job, every image once."""
    env = frond.env
    for i in range(IMAGES):
        scene = planted(f"{i:02d}.tif", i, side=512, count=4)
        await store.put(f"drained/{scene.name}", scene.data)
    producer = EventProducer(env["FROND_KAFKA_BOOTSTRAP"], env["FROND_TOPIC_PREFIX"], "/test")
    await producer.start()
    await producer.send([
        Outgoing(topics.UPLOADED, ImageUploaded(
            job_id="drained", image=store.uri(f"drained/{i:02d}.tif"), job_size=IMAGES))
        for i in range(IMAGES)
    ])  # fmt: skip
    await producer.stop()
    await handled(env, topics.DETECTED, 3)
    assert await terminate(frond, "tiler", "inference") == {"tiler": 0, "inference": 0}
    offsets = Offsets(env["FROND_KAFKA_BOOTSTRAP"], env["FROND_TOPIC_PREFIX"])
    group = env["FROND_TOPIC_PREFIX"] + "frond."
    results = 0
    async for found in store.list("jobs/drained/images/"):
        results += "/chunks/" in found.key
    ends = await offsets.ends([topics.TILED])
    lag, _ = await offsets.lag(group + "inference", topics.TILED)
    assert sum(ends.values()) - lag == results
    plans = 0
    async for found in store.list("jobs/drained/images/"):
        plans += found.key.endswith("/plan.json")
    waiting, _ = await offsets.lag(group + "tiler", topics.UPLOADED)
    assert IMAGES - waiting == plans
    await offsets.close()
    frond.start("tiler", "inference")
    await handled(env, topics.IMAGED, 10)
    assert await terminate(frond, *NAMES) == dict.fromkeys(NAMES, 0)
    frond.start(*NAMES)
    event = await completed(env, "drained", within=400)
    assert event["images"] == {"expected": IMAGES, "completed": IMAGES, "failed": 0}


async def test_uploads_and_streams_of_a_rest_door_that_closes(frond: Services) -> None:
    """An upload under way is finished and kept; a job's event stream ends, whole, at once."""
    await frond.ready("ingest")
    url = frond.url("ingest")
    scene = planted("slow.tif", 7)
    half = asyncio.Event()
    go_on = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield scene.data[:5000]
        half.set()
        await go_on.wait()
        yield scene.data[5000:]

    async with httpx.AsyncClient(headers=KEY, timeout=60, trust_env=False) as http:
        (await http.post(f"{url}/jobs", json={"job_id": "closing"})).raise_for_status()
        put = asyncio.create_task(http.put(f"{url}/jobs/closing/images/slow.tif", content=body()))
        await half.wait()
        async with http.stream("GET", f"{url}/jobs/closing/events") as stream:
            lines = stream.aiter_lines()
            assert (await anext(lines)).startswith("retry:")
            ending = asyncio.create_task(terminate(frond, "ingest"))
            async for _ in lines:
                pass  # to its end: a cut connection would raise
        go_on.set()
        answer = await put
    assert answer.status_code in {200, 201, 202}, answer.text
    assert await ending == {"ingest": 0}
    frond.start("ingest")
    await frond.ready("ingest")
    async with httpx.AsyncClient(headers=KEY, timeout=60, trust_env=False) as http:
        told = (await http.get(f"{url}/jobs/closing/images")).json()
    assert [image["name"] for image in told["images"]] == ["slow.tif"]
