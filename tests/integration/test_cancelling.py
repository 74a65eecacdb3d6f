"""``cancel`` stops a job within seconds, wherever it is: its completed event says dismissed."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Producer

from frond.contracts import keys, topics
from frond.contracts.events import JobCancelled
from frond.store import ObjectStore
from support.kafka import first, reading
from support.planted import planted
from support.slow import endless

pytestmark = [pytest.mark.stack, pytest.mark.slow]

SOON_S = 10.0
LATEST_S = 60.0
"""Seconds that a person waits; as many times more as the machine has more to do than cores, but never
longer than the second. What each of these jobs would otherwise wait for takes minutes."""


@pytest.fixture
async def http(frond: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=frond.url("ingest"), headers={"Authorization": "Bearer test-key"}, timeout=60
    ) as client:
        yield client


@pytest.fixture
async def ended(frond: Any) -> AsyncIterator[AIOKafkaConsumer]:
    async with reading(frond.env, topics.COMPLETED) as consumer:
        await consumer.seek_to_end()
        for partition in consumer.assignment():
            await consumer.position(partition)
        yield consumer


async def dismissed(ended: AIOKafkaConsumer, job: str, since: float) -> dict[str, Any]:
    """The job's completed event; fails when it took longer than a person waits."""
    async with asyncio.timeout(240):
        async for message in ended:
            data = json.loads(message.value)
            if data["job_id"] == job:
                took = time.monotonic() - since
                assert data["outcome"] == "dismissed", data
                print(f"{job}: dismissed after {took:.2f} s")
                load = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
                soon = min(SOON_S * load, LATEST_S)
                assert took < soon, f"{job} ended {took:.1f} s after it was cancelled"
                return dict(data)
    raise AssertionError("the topic ended")


async def cancel(http: httpx.AsyncClient, job: str) -> float:
    began = time.monotonic()
    (await http.post(f"/jobs/{job}/cancel")).raise_for_status()
    return began


async def same_image(store: ObjectStore, prefix: str, count: int) -> list[str]:
    data = planted("one.tif", 1).data
    slots = asyncio.Semaphore(16)

    async def put(n: int) -> str:
        async with slots:
            await store.put(f"{prefix}/{n:05d}.tif", data)
        return store.uri(f"{prefix}/{n:05d}.tif")

    return list(await asyncio.gather(*(put(n) for n in range(count))))


def publish(env: dict[str, str], *values: dict[str, Any], cancelled: bool = False) -> None:
    """As another program does."""
    producer = Producer({"bootstrap.servers": env["FROND_KAFKA_BOOTSTRAP"]})
    headers: Any = {"ce_type": JobCancelled.TYPE, "ce_id": "c", "ce_source": "/t"}
    for value in values:
        producer.produce(
            env["FROND_TOPIC_PREFIX"] + "frond.uploaded.v1", json.dumps(value).encode(),
            key=str(value.get("image", value["job_id"])).encode(),
            headers=headers if cancelled else None,
        )  # fmt: skip
    assert producer.flush(60) == 0


async def test_behind_others_and_in_the_middle_of_its_own_images(
    frond: Any, store: ObjectStore, http: httpx.AsyncClient, ended: AIOKafkaConsumer
) -> None:
    """A job of which something is detected already, and one none of whose images had its turn, both
    behind a third one: by REST, and by a cancellation on the ingest topic."""
    uris = await same_image(store, "many", 1200)
    for job, count in (("in-the-way", 1200), ("running", 400), ("by-topic", 400)):
        publish(frond.env, *({"job_id": job, "image": u, "job_size": count} for u in uris[:count]))
    await first(frond.env, topics.DETECTED, lambda _, d: d["job_id"] == "running")
    event = await dismissed(ended, "running", await cancel(http, "running"))
    assert event["images"]["expected"] == 400
    began = time.monotonic()
    publish(frond.env, {"job_id": "by-topic"}, cancelled=True)
    await dismissed(ended, "by-topic", began)
    # the third one goes on, and hears of nothing
    assert (await http.get("/jobs/in-the-way")).json()["status"] in ("accepted", "running")
    await dismissed(ended, "in-the-way", await cancel(http, "in-the-way"))


async def test_while_a_slow_raster_is_read(
    frond: Any, store: ObjectStore, http: httpx.AsyncClient, ended: AIOKafkaConsumer, tmp_path: Path
) -> None:
    """All readers are busy with rasters that take minutes; they are stopped, and free for others."""
    await store.put("slow/slow.tif", endless(tmp_path / "slow.tif"))
    size = 16
    for n in range(size):
        await store.put(f"slow/{n}.tif", await store.get("slow/slow.tif"))
    images = [{"job_id": "slow", "image": store.uri(f"slow/{n}.tif"), "job_size": size}
              for n in range(size)]  # fmt: skip
    publish(frond.env, *images)
    await until(lambda: store.exists(keys.job_spec("slow")))
    await until(lambda: shown(http, "slow"))
    began = await cancel(http, "slow")
    await dismissed(ended, "slow", began)
    (uri,) = await same_image(store, "after", 1)
    publish(frond.env, {"job_id": "after", "image": uri, "job_size": 1})
    async with asyncio.timeout(240):
        async for message in ended:
            if json.loads(message.value)["job_id"] == "after":
                break
    print(f"the next job ended {time.monotonic() - began:.1f} s after the cancellation")
    # two readers a minute each, and more: what a job behind them would have waited for
    assert time.monotonic() - began < 120


async def until(there: Any) -> None:
    async with asyncio.timeout(60):
        while not await there():  # noqa: ASYNC110 # the store and the read model tell nobody
            await asyncio.sleep(0.05)


async def shown(http: httpx.AsyncClient, job: str) -> bool:
    return (await http.get(f"/jobs/{job}")).is_success


async def test_while_a_prefix_is_listed(
    frond: Any, store: ObjectStore, http: httpx.AsyncClient, ended: AIOKafkaConsumer
) -> None:
    """What was listed is dropped, what was not is not listed: no image comes after the end."""
    await same_image(store, "prefix", 1500)
    starting = asyncio.create_task(
        http.post("/start-job", json={"s3_url": store.uri("prefix/"), "job_id": "listed"})
    )
    await until(lambda: store.exists(keys.open_marker("listed")))
    await dismissed(ended, "listed", await cancel(http, "listed"))
    await starting
    assert not await store.exists(keys.job_sealed("listed"))


async def test_while_it_is_open_or_being_closed(
    frond: Any, store: ObjectStore, http: httpx.AsyncClient, ended: AIOKafkaConsumer
) -> None:
    """Without any image; and with all of its images done but the seal, its results to be written."""
    (await http.post("/jobs", json={"job_id": "empty"})).raise_for_status()
    event = await dismissed(ended, "empty", await cancel(http, "empty"))
    assert event["images"]["completed"] == 0
    uris = await same_image(store, "done", 300)
    (await http.post("/jobs", json={"job_id": "done"})).raise_for_status()
    (await http.post("/jobs/done/images", json={"images": uris})).raise_for_status()

    async def all_done() -> bool:
        return bool((await http.get("/jobs/done")).json()["images"]["completed"] == 300)

    async with asyncio.timeout(200):
        while not await all_done():  # noqa: ASYNC110 # as a client asks
            await asyncio.sleep(0.2)
    event = await dismissed(ended, "done", await cancel(http, "done"))
    assert event["images"]["completed"] == 300
