"""Jobs through each door: all images accounted for, artifacts that others' tools open, boxes where
the objects were planted."""

from __future__ import annotations

import asyncio
import io
import json
import os
from typing import Any

import geopandas
import httpx
import numpy as np
import pytest
from confluent_kafka import Producer
from pycocotools.coco import COCO

from frond.contracts import keys
from frond.store import ObjectStore
from support.kafka import completed
from support.planted import Planted, planted

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(900)]

MANY = int(os.environ.get("FROND_TEST_IMAGES", "1000"))


def scenes(count: int) -> list[Planted]:
    return [planted(f"scene-{i:05d}.tif", i) for i in range(count)]


async def check(store: ObjectStore, job: str, event: dict[str, Any], truth: list[Planted]) -> None:
    """The ledger closes and every planted square lies within a pixel of a box, and no box more."""
    assert event["outcome"] == "completed"
    assert event["images"] == {"expected": len(truth), "completed": len(truth), "failed": 0}
    squares = sum(len(t.corners) for t in truth)
    assert sum(event["detections"].values()) == squares

    coco_json = json.loads(await store.get(keys.result(job, "coco.json")))
    coco = COCO()
    coco.dataset = coco_json
    coco.createIndex()
    assert len(coco.getImgIds()) == len(truth)
    results = json.loads(await store.get(keys.result(job, "coco-results.json")))
    assert len(coco.loadRes(results).getAnnIds()) == squares

    parquet = geopandas.read_parquet(
        io.BytesIO(await store.get(keys.result(job, "detections.parquet")))
    )
    assert parquet.crs == truth[0].crs
    geojson = geopandas.read_file(
        io.BytesIO(await store.get(keys.result(job, "detections.geojson")))
    )
    for frame in (parquet, geojson.to_crs(truth[0].crs)):
        assert len(frame) == squares
        found = np.column_stack([frame.geometry.centroid.x, frame.geometry.centroid.y])
        wanted = np.concatenate([t.map_centres() for t in truth])
        gsd = abs(truth[0].transform.a)
        gaps = _nearest(wanted, found)
        assert gaps.max() <= gsd, f"a box lies {gaps.max() / gsd:.2f} pixels off"


def _nearest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    from shapely import STRtree, points

    tree = STRtree(points(b))
    _, distances = tree.query_nearest(points(a), return_distance=True, all_matches=False)
    return distances


async def test_a_thousand_images_by_rest(frond: Any, store: ObjectStore) -> None:
    """Created, PUT, sealed: each image counted once, and the status says so."""
    truth = scenes(MANY)
    async with _api(frond) as http:
        job = (await http.post("/jobs", json={"job_id": "by-rest"})).raise_for_status().json()
        assert job["status"] == "accepted"
        slots = asyncio.Semaphore(4)

        async def put(scene: Planted) -> None:
            async with slots:
                answer = await http.put(f"/jobs/by-rest/images/{scene.name}", content=scene.data)
                assert answer.is_success, answer.text

        await asyncio.gather(*map(put, truth))
        (await http.post("/jobs/by-rest/seal", json={})).raise_for_status()
        event = await completed(frond.env, "by-rest", within=600)
        await check(store, "by-rest", event, truth)
        status = await _until_final(http, "by-rest")
        assert status["status"] == "successful"
        assert status["images"]["completed"] == MANY


async def test_a_thousand_images_by_the_ingest_topic(frond: Any, store: ObjectStore) -> None:
    """A librdkafka producer, whose partitioner differs, no headers, and no REST service up."""
    frond.kill("ingest")
    truth = scenes(MANY)
    uris = await _put_all(store, truth, "outside/")
    producer = Producer({"bootstrap.servers": frond.env["FROND_KAFKA_BOOTSTRAP"]})
    topic = frond.env["FROND_TOPIC_PREFIX"] + "frond.uploaded.v1"
    for uri in uris:
        message = {"job_id": "by-topic", "image": uri, "job_size": MANY}
        producer.produce(topic, json.dumps(message).encode(), key=uri.encode())
        producer.poll(0)
    assert producer.flush(60) == 0
    event = await completed(frond.env, "by-topic", within=600)
    await check(store, "by-topic", event, truth)
    # and when ingest comes up, it tells of a job that it never saw
    frond.start("ingest")
    await frond.ready("ingest")
    async with _api(frond) as http:
        assert (await _until_final(http, "by-topic"))["images"]["completed"] == MANY


async def test_a_thousand_images_by_prefix(frond: Any, store: ObjectStore) -> None:
    """`POST /start-job` with a prefix finds every raster below it."""
    truth = scenes(MANY)
    await _put_all(store, truth, "flights/tuesday/")
    async with _api(frond) as http:
        answer = await http.post(
            "/start-job",
            json={"job_id": "by-prefix", "s3_url": f"s3://{store.bucket}/flights/tuesday/"},
        )
        assert answer.is_success, answer.text
    await check(store, "by-prefix", await completed(frond.env, "by-prefix", within=600), truth)


async def test_one_multipart_upload_with_good_and_bad(frond: Any, store: ObjectStore) -> None:
    """Bad files fail alone, with a reason; the answer's job ends with errors, listed."""
    good = scenes(3)
    files = [("files", (g.name, g.data)) for g in good]
    files.append(("files", ("notes.tif", b"these are my notes, not a raster\n" * 20)))
    files.append(("files", ("cut.tif", good[0].data[: len(good[0].data) // 2])))
    files.append(("files", ("empty.tif", b"")))
    async with _api(frond) as http:
        answer = await http.post("/upload", files=files, data={"job_id": "mixed"})
        assert answer.is_success, answer.text
        event = await completed(frond.env, "mixed")
        assert event["outcome"] == "completed_with_errors"
        assert event["images"] == {"expected": 6, "completed": 3, "failed": 3}
        reasons = {f["name"]: f["reason"] for f in event["failures"]}
        assert reasons["notes.tif"] == "not-a-raster"
        assert reasons["empty.tif"] == "empty-file"
        assert reasons["cut.tif"] in ("truncated", "corrupt")
        status = await _until_final(http, "mixed")
        assert status["status"] == "successful"
        assert status["outcome"] == "completed_with_errors"


async def _put_all(store: ObjectStore, truth: list[Planted], prefix: str) -> list[str]:
    slots = asyncio.Semaphore(16)

    async def put(scene: Planted) -> str:
        async with slots:
            await store.put(prefix + scene.name, scene.data, "image/tiff")
        return store.uri(prefix + scene.name)

    return list(await asyncio.gather(*map(put, truth)))


def _api(frond: Any) -> httpx.AsyncClient:
    key = frond.env["FROND_API_KEY"]
    return httpx.AsyncClient(
        base_url=frond.url("ingest"), timeout=60, headers={"Authorization": f"Bearer {key}"}
    )


async def _until_final(http: httpx.AsyncClient, job: str) -> dict[str, Any]:
    """Follow the job's event stream to its end; then its status."""
    async with asyncio.timeout(120):
        while True:
            status = await http.get(f"/status/{job}")
            if status.is_success and status.json()["status"] in (
                "successful",
                "failed",
                "dismissed",
            ):
                return dict(status.json())
            async with http.stream("GET", f"/jobs/{job}/events") as stream:
                async for line in stream.aiter_lines():
                    if line.startswith("data:"):
                        break
