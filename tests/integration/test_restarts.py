"""Killing and restarting in the middle of a job ends in the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from frond.bus import EventProducer, Outgoing, ensure_topics
from frond.contracts import keys, topics
from frond.contracts.events import ImageUploaded
from frond.store import ObjectStore
from support.kafka import completed, reading
from support.planted import planted
from support.services import NAMES, open_store, prepare

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]

JOB = "night-flight"
IMAGES = 40


async def results(store: ObjectStore) -> dict[str, bytes]:
    """Every artifact of the job, per-image ones too, by its key."""
    found = {}
    for prefix in (f"jobs/{JOB}/results/", f"jobs/{JOB}/images/"):
        async for item in store.list(prefix):
            found[item.key] = await store.get(item.key)
    return found


async def submit(env: dict[str, str], store: ObjectStore) -> None:
    for i in range(IMAGES):
        scene = planted(f"scene-{i:03d}.tif", i, side=700, count=12)
        await store.put(f"flight/{scene.name}", scene.data)
    producer = EventProducer(env["FROND_KAFKA_BOOTSTRAP"], env["FROND_TOPIC_PREFIX"], "/test")
    await producer.start()
    await producer.send([
        Outgoing(topics.UPLOADED, ImageUploaded(
            job_id=JOB, image=store.uri(f"flight/scene-{i:03d}.tif"), job_size=IMAGES))
        for i in range(IMAGES)
    ])  # fmt: skip
    await producer.stop()


async def test_every_service_killed_in_the_middle(
    service_env: dict[str, str], make_services: Any, tmp_path: Path
) -> None:
    """SIGKILL to each service after it has had an effect, then all at once: the artifacts are byte
    for byte those of an undisturbed run, and one completed event is there."""
    base = {**service_env, "FROND_DEFAULT_MODEL": "blob", "FROND_RECONCILE_EVERY_S": "2",
            "FROND_STALL_S": "8"}  # fmt: skip
    runs = []
    for name, disturbed in (("calm", False), ("storm", True)):
        env = {**base, "FROND_TOPIC_PREFIX": f"{service_env['FROND_TOPIC_PREFIX']}{name}-",
               "DATABASE_PATH": str(tmp_path / f"{name}.db"),
               "FROND_CACHE_DIR": str(tmp_path / "cache")}  # fmt: skip
        store = open_store(env)
        await ensure_topics(env["FROND_KAFKA_BOOTSTRAP"], env["FROND_TOPIC_PREFIX"])
        await prepare(env, store, tmp_path / "blobs")
        services = make_services(env, name)
        services.start()
        await services.ready()
        await submit(env, store)
        if disturbed:
            await storm(services, env)
        event = await completed(env, JOB, within=300)
        assert event["images"] == {"expected": IMAGES, "completed": IMAGES, "failed": 0}
        runs.append(await results(store))
        assert [i.key async for i in store.list(keys.OPEN)] == []
        services.close()
        await store.delete_prefix("")
        store.close()
    calm, stormy = runs
    assert sorted(calm) == sorted(stormy)
    assert [k for k in calm if calm[k] != stormy[k]] == []


async def storm(services: Any, env: dict[str, str]) -> None:
    """Kill each service once its topic shows progress; at last all of them at once."""
    seen = {"tiler": topics.TILED, "inference": topics.DETECTED, "aggregator": topics.IMAGED}
    for name, topic in seen.items():
        await progress(env, topic, 5)
        services.kill(name)
        services.start(name)
    await progress(env, topics.IMAGED, 12)
    services.kill()
    services.start(*NAMES)
    await services.ready()


async def progress(env: dict[str, str], topic: Any, count: int) -> None:
    """Wait until the topic holds this many events."""
    ids = set()
    async with reading(env, topic) as consumer:
        async for message in consumer:
            ids.add(json.dumps(sorted((k, v.decode()) for k, v in message.headers if k == "ce_id")))
            if len(ids) >= count:
                return
