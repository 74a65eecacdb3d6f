"""docs/runbook.md, "Backup and restore", followed: the bucket is copied out while a job is in flight,
everything is lost, and the copy is put into an empty bucket beside a broker and a database that know
nothing."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import mimetypes
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer

from frond.bus import ensure_topics
from frond.contracts import keys, topics
from frond.contracts.errors import ObjectMissing
from frond.stack import Endpoints
from frond.stack import testing as stack_testing
from frond.store import ObjectStore
from support.hooks import Hooks, hooks
from support.kafka import completed, first, reading
from support.planted import planted
from support.services import Services, installation, open_store, prepare

pytestmark = [pytest.mark.stack, pytest.mark.slow]

FAST = {"FROND_RECONCILE_EVERY_S": "2", "FROND_STALL_S": "5"}


@pytest.fixture
def new_broker(stack: Endpoints) -> Iterator[str]:
    """Topics that nobody has written to and groups that nobody was in."""
    prefix = stack_testing.new_prefix()
    yield prefix
    stack_testing.delete_topics(stack.kafka_bootstrap, prefix)


@asynccontextmanager
async def api(services: Services, key: str = "test-key") -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=services.url("ingest"), headers={"Authorization": f"Bearer {key}"}, timeout=60
    ) as http:
        yield http


async def take_out(store: ObjectStore, folder: Path, prefix: str = "") -> None:
    """Objects as plain files, as ``aws s3 sync`` writes them: of what is said of them nothing stays."""
    async for found in store.list(prefix):
        path = folder / found.key
        path.parent.mkdir(parents=True, exist_ok=True)
        # a mark that was listed may be gone: what it stood for is done by then
        with suppress(ObjectMissing):
            await store.get_file(found.key, path)


async def put_back(folder: Path, store: ObjectStore) -> None:
    """Files as objects: their types are guessed from their names, as ``aws s3 sync`` does."""
    for path in (p for p in folder.rglob("*") if p.is_file()):
        kind = mimetypes.guess_type(path.name)[0] or "binary/octet-stream"
        data = path.read_bytes()
        store.s3.put_object(
            store.bucket, path.relative_to(folder).as_posix(), io.BytesIO(data), len(data), kind
        )


async def add(http: httpx.AsyncClient, job: str, name: str, seed: int) -> None:
    answer = await http.put(f"/jobs/{job}/images/{name}", content=planted(name, seed).data)
    answer.raise_for_status()


def publish(env: dict[str, str], images: list[str]) -> None:
    """As another program does: these images are in no record of ingest's."""
    producer = Producer({"bootstrap.servers": env["FROND_KAFKA_BOOTSTRAP"]})
    for image in images:
        value = {"job_id": "by-topic", "image": image, "job_size": 2}
        producer.produce(env["FROND_TOPIC_PREFIX"] + "frond.uploaded.v1", json.dumps(value))
    assert producer.flush(60) == 0


async def results(http: httpx.AsyncClient, job: str) -> dict[str, tuple[str, str]]:
    """SHA-256 and media type of each file that the job's list of results names."""
    listed = (await http.get(f"/jobs/{job}/results")).raise_for_status().json()
    found = {}
    for file in listed["results"]:
        answer = (await http.get(f"/jobs/{job}/results/{file['name']}")).raise_for_status()
        sha = hashlib.sha256(answer.content).hexdigest()
        assert sha == file["sha256"]
        found[file["name"]] = (sha, answer.headers["content-type"])
    return found


async def shown(http: httpx.AsyncClient, job: str) -> dict[str, Any]:
    """The job's status as soon as the read model has it as ended."""
    async with asyncio.timeout(150):
        while True:
            answer = await http.get(f"/jobs/{job}")
            if answer.is_success and answer.json().get("outcome"):
                return dict(answer.json())
            await asyncio.sleep(0.1)  # the read model tells nobody


async def told(http: httpx.AsyncClient, hook: Hooks, job: str) -> None:
    """The job's one notice has come, and the notifier has written that down."""
    post = await asyncio.to_thread(hook.posts.get, timeout=120)
    assert json.loads(post.body)["data"]["job_id"] == job
    async with asyncio.timeout(150):
        while True:
            answer = (await http.get(f"/jobs/{job}/webhooks")).raise_for_status().json()
            if [n["state"] for n in answer["webhooks"]] == ["delivered"]:
                return
            await asyncio.sleep(0.1)  # nor does the store


async def half_done(services: Services, store: ObjectStore, http: httpx.AsyncClient) -> list[str]:
    """A job with an image at each place where one can stand: finished, planned, recorded; one that
    the aggregator has but to close; one of which an image is on the topic alone: its images are
    returned."""
    env = services.env
    by_topic = []
    for n in range(2):
        await store.put(f"camera/{n}.tif", planted("p.tif", 20 + n).data)
        by_topic.append(store.uri(f"camera/{n}.tif"))
    await add(http, "flying", "finished.tif", 11)
    publish(env, by_topic[:1])
    for job in ("flying", "by-topic"):
        await first(env, topics.IMAGED, lambda _, d, j=job: d["job_id"] == j and "outcome" in d)
    services.kill("aggregator")
    await add(http, "closing", "one.tif", 14)
    await first(env, topics.DETECTED, lambda _, d: d.get("name") == "one.tif")
    services.kill("inference")
    await add(http, "flying", "planned.tif", 12)
    await first(env, topics.TILED, lambda _, d: d.get("name") == "planned.tif")
    services.kill("tiler")
    await add(http, "flying", "recorded.tif", 13)
    publish(env, by_topic[1:])
    return by_topic


async def of_all_ended(env: dict[str, str]) -> list[str]:
    """The jobs of all completed events that the topic has now."""
    async with reading(env, topics.COMPLETED) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        found = []
        for partition, end in ends.items():
            while await consumer.position(partition) < end:
                found.append(json.loads((await consumer.getone(partition)).value)["job_id"])
        return found


async def test_from_a_copy_of_the_bucket_alone(
    stack: Endpoints, topic_prefix: str, new_broker: str, bucket: str, tmp_path: Path,
    make_services: Any,
) -> None:  # fmt: skip
    """The ended job is as it was, with its results and its owner's key, and nobody is told of it
    again; one that ended while the copy was taken is not lost; the job in flight ends whole; the one
    whose image was on the topic alone ends once that is sent again."""
    folders = [tmp_path / name for name in ("lost", "new")]
    for folder in folders:
        folder.mkdir()
    copy = tmp_path / "backup"
    env = installation(stack, topic_prefix, bucket, folders[0], **FAST)
    store = open_store(env)
    await prepare(env, store, tmp_path / "blob")
    with hooks() as hook:
        services = make_services(env, "before")
        services.start()
        await services.ready()
        async with api(services) as http:
            made = await http.post("/keys", json={"name": "pilot", "tenant": "acme"})
            key = made.raise_for_status().json()["key"]
            jobs = (("ended", 2, key), ("flying", 3, "test-key"), ("closing", 1, "test-key"))
            for job, size, who in jobs:
                body = {"job_id": job, "size": size, "webhook_url": hook.url}
                async with api(services, who) as mine:
                    (await mine.post("/jobs", json=body)).raise_for_status()
            for n in range(2):
                await add(http, "ended", f"{n}.tif", n)
            await told(http, hook, "ended")
            before = await shown(http, "ended")
            files = await results(http, "ended")
            assert len(files) > 3
            by_topic = await half_done(services, store, http)
            for markers in (keys.OPEN, keys.UNTOLD, keys.DELIVERIES):
                await take_out(store, copy, markers)
            services.start("aggregator")
            await told(http, hook, "closing")
            await take_out(store, copy)
        services.kill()
        await store.delete_prefix("")

        env = installation(stack, new_broker, bucket, folders[1], **FAST)
        await ensure_topics(env["FROND_KAFKA_BOOTSTRAP"], new_broker)
        await put_back(copy, store)
        services = make_services(env, "after")
        services.start()
        await services.ready()
        async with api(services, key) as http:
            after = await shown(http, "ended")
            same = ("status", "outcome", "images", "windows", "detections", "created", "finished")
            assert {k: after[k] for k in same} == {k: before[k] for k in same}
            assert await results(http, "ended") == files
            listed = (await http.get("/jobs")).raise_for_status().json()["jobs"]
            assert [j["job_id"] for j in listed] == ["ended"]
        event = await completed(env, "flying")
        assert event["images"] == {"expected": 3, "completed": 3, "failed": 0}
        assert sum(event["detections"].values()) == 9
        async with api(services) as http:
            # the first notice since: were the ended ones told of again, that would have come sooner
            await told(http, hook, "flying")
            assert len(await results(http, "flying")) == len(files)
            assert (await shown(http, "closing"))["outcome"] == "completed"
            assert (await http.get("/jobs/by-topic")).json()["status"] in ("accepted", "running")
            publish(env, by_topic)
            event = await completed(env, "by-topic")
            assert event["images"] == {"expected": 2, "completed": 2, "failed": 0}
        assert hook.posts.empty()
        # what ended while the copy was taken says so once more, under the same id
        assert sorted(await of_all_ended(env)) == ["by-topic", "closing", "flying"]
    store.close()
