"""A version beside production, from the registry to the comparison, through every service."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from confluent_kafka import Producer
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from frond.contracts import keys
from frond.contracts.ids import image_id
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.contracts.shadows import ShadowFailure, shadow_windows
from frond.models.registry import Registry
from frond.models.testing import blob_model, colour_model
from frond.raster import chunks_of
from frond.store import ObjectStore
from support.kafka import completed
from support.planted import planted
from support.waiting import until

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def cli(frond: Any, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **frond.env, "FROND_API_URL": frond.url("ingest")}
    return subprocess.run(
        [sys.executable, "-c", "from frond.client.cli import main; main()", *args],
        env=env, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def asked(url: str) -> Any:
    return httpx.get(url, headers={"Authorization": "Bearer test-key"}, timeout=60).json()


def submit(env: dict[str, str], event: dict[str, Any]) -> None:
    producer = Producer({"bootstrap.servers": env["FROND_KAFKA_BOOTSTRAP"]})
    producer.produce(env["FROND_TOPIC_PREFIX"] + "frond.uploaded.v1", json.dumps(event))
    assert producer.flush(30) == 0


async def results(store: ObjectStore, job: str, uri: str) -> list[bytes]:
    """What an image's results are made of, and some of them, without the ids of image and job."""
    own = image_id(job, uri)
    found = [o.key async for o in store.list(keys.image_prefix(job, own))]
    named = ("detections.arrow", "coco.json", "detections.geojson")
    data = [await store.get(k) for k in found if "/chunks/" in k or k.endswith(named)]
    return sorted(d.replace(own.encode(), b"").replace(job.encode(), b"") for d in data)


async def test_a_version_beside_production(frond: Any, store: ObjectStore, tmp_path: Path) -> None:
    """Set once, taken by jobs of production, compared by class and on the map; the job's own results
    are those of a job without; what is missing is told with why; a deleted job leaves none."""
    shadow = await Registry(store).push(
        blob_model(tmp_path / "2", version="2", score=0.97), alias="staging"
    )
    set_ = await asyncio.to_thread(
        cli, frond, "models", "shadow", "blob", "staging", "--share", "0.5", "--why", "stricter"
    )
    assert set_.returncode == 0, set_.stderr
    sides = {"a.tif": (1, 1300), "b.tif": (2, 900)}
    uris = {}
    for name, (seed, side) in sides.items():
        uris[name] = store.uri(f"shadow/{name}")
        data = planted(name, seed, side=side, count=60 if side > 1000 else 25).data
        await store.put(f"shadow/{name}", data)
    async with httpx.AsyncClient(
        base_url=frond.url("ingest"), headers={"Authorization": "Bearer test-key"}, timeout=60
    ) as http:
        named = [{"image": uri, "name": name} for name, uri in uris.items()]
        for job, wish in (("beside", None), ("alones", "none")):
            spec = {"job_id": job, "size": 2} | ({"shadow": wish} if wish else {})
            made = (await http.post("/jobs", json=spec)).raise_for_status().json()
            assert bool(made["shadow"]) == (job == "beside")
            (await http.post(f"/jobs/{job}/images", json={"images": named})).raise_for_status()
        events = [await completed(frond.env, job) for job in ("beside", "alones")]
        assert events[0]["detections"] == events[1]["detections"]
        for uri in uris.values():
            one, other = [await results(store, job, uri) for job in ("beside", "alones")]
            assert one == other and len(one) > 3
        ids = [image_id("beside", uri) for uri in uris.values()]
        plans = [
            ImagePlan.model_validate_json(await store.get(keys.image_plan("beside", i)))
            for i in ids
        ]
        chosen = [
            (chunk, some)
            for plan in plans
            for chunk in chunks_of(plan)
            if (some := shadow_windows(plan.source.etag, chunk.windows, 0.5))
        ]
        stored = [
            o.key.rpartition("/")[2]
            for i in ids
            async for o in store.list(keys.image_prefix("beside", i) + keys.SHADOW)
            # a rebalance that gives a chunk out again leaves a note beside its result
            if o.key.endswith(".arrow")
        ]
        assert sorted(stored) == sorted(f"{chunk.chunk_id}.arrow" for chunk, _ in chosen)

        # what the door tells of images comes by a topic of its own
        seen = f"{frond.url('ingest')}/jobs/beside/images?status=completed"
        await asyncio.to_thread(until, lambda: len(asked(seen)["images"]) == 2)
        out = tmp_path / "diff.geojson"
        done = await asyncio.to_thread(
            cli, frond, "models", "compare", "beside", "--json", "--out", str(out)
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["windows"] == sum(len(some) for _, some in chosen)
        assert (told["images"], told["chunks_without"]) == (2, 0)
        assert told["shadow"] == {"model": shadow.model_dump(), "share": 0.5}
        blob = told["classes"]["blob"]
        assert blob["both"] > 0 and blob["only_production"] > 0 == blob["only_shadow"]
        assert blob["mean_iou"] == 1 and blob["mean_score_difference"] == 0
        features = json.loads(out.read_text())["features"]
        by = [f["properties"]["found_by"] for f in features]
        assert (by.count("both"), by.count("production")) == (blob["both"], blob["only_production"])
        assert {f["properties"]["image"] for f in features} == set(uris)

        lost, failed = (chunk for chunk, _ in (chosen[0], chosen[-1]))
        for chunk in (lost, failed):
            await store.delete(keys.shadow_result(chunk.job_id, chunk.image_id, chunk.chunk_id))
        note = ShadowFailure(model=shadow, reason=Reason.UNAVAILABLE, detail="It was too slow.")
        ids_ = failed.job_id, failed.image_id, failed.chunk_id
        await store.put(keys.shadow_failure(*ids_), note.model_dump_json().encode())
        done = await asyncio.to_thread(cli, frond, "models", "compare", "beside")
        assert done.returncode == 0, done.stderr
        assert f"2 of {len(chosen)} chunks have no shadow result" in done.stdout
        assert "1: It was too slow." in done.stdout and "Nothing is known of it" in done.stdout
        done = await asyncio.to_thread(cli, frond, "models", "compare", "alones")
        assert done.returncode == 2 and "has no shadow" in done.stderr
        status = await asyncio.to_thread(cli, frond, "status", "beside")
        assert shadow.digest[:12] in status.stdout and "0.5 of the windows" in status.stdout

        (await http.delete("/jobs/beside")).raise_for_status()
        left = [o.key async for o in store.list(keys.job_prefix("beside"))]
        assert left == [keys.job_cancelled("beside")]


async def test_a_shadow_by_the_topic(frond: Any, store: ObjectStore, tmp_path: Path) -> None:
    """A message's own wish is pinned; one that cannot be is told of as an unknown model is."""
    registry = Registry(store)
    shadow = await registry.push(blob_model(tmp_path / "3", version="3"), alias="next")
    await registry.push(blob_model(tmp_path / "4", version="4", size=128), alias="small")
    await store.put("shadow/t.tif", planted("t.tif", 5, side=300).data)
    uri = store.uri("shadow/t.tif")
    for job, ref in (("topic-good", "blob@next"), ("topic-bad", "blob@small")):
        submit(frond.env, {"job_id": job, "image": uri, "job_size": 1,
                           "shadow": {"model": ref, "share": 1}})  # fmt: skip
    good, bad = [await completed(frond.env, job) for job in ("topic-good", "topic-bad")]
    assert good["outcome"] == "completed"
    rows = [
        o.key
        async for o in store.list(
            keys.image_prefix("topic-good", image_id("topic-good", uri)) + keys.SHADOW
        )
        if o.key.endswith(".arrow")
    ]
    assert len(rows) == 1
    plan = keys.image_plan("topic-good", image_id("topic-good", uri))
    pinned = ImagePlan.model_validate_json(await store.get(plan)).shadow
    assert pinned is not None and (pinned.model, pinned.share) == (shadow, 1)
    (failure,) = bad["failures"]
    assert failure["reason"] == "bad-model" and "128" in failure["detail"]


async def test_masks_beside_masks(frond: Any, store: ObjectStore, tmp_path: Path) -> None:
    """Of a segmentation: pixels by class, and windows with the share that disagrees."""
    registry = Registry(store)
    await registry.push(colour_model(tmp_path / "c1"))
    other = colour_model(tmp_path / "c2", version="2")
    manifest = (other / "model.yaml").read_text()
    # what the one calls red, the other calls green
    (other / "model.yaml").write_text(manifest.replace("- red\n- green", "- green\n- red"))
    await registry.push(other, alias="other")
    pixels = np.full((3, 150, 150), 90, np.uint8)
    pixels[:, :60, :100] = np.array((255, 0, 0))[:, None, None]
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=150, height=150, count=3, dtype="uint8", crs="EPSG:32650",
            transform=from_origin(480_000, 80_000, 0.5, 0.5),
        ) as out:  # fmt: skip
            out.write(pixels)
        await store.put("shadow/c.tif", bytes(memory.read()))
    submit(frond.env, {"job_id": "masks", "image": store.uri("shadow/c.tif"), "job_size": 1,
                       "model": "colours", "shadow": {"model": "colours@other", "share": 1}})  # fmt: skip
    assert (await completed(frond.env, "masks"))["outcome"] == "completed"
    seen = f"{frond.url('ingest')}/jobs/masks/images?status=completed"
    await asyncio.to_thread(until, lambda: len(asked(seen).get("images", ())) == 1)
    diff = tmp_path / "diff.geojson"
    done = await asyncio.to_thread(
        cli, frond, "models", "compare", "masks", "--json", "--out", str(diff)
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["task"], told["pixels"]) == ("segmentation", 150 * 150)
    red = told["classes"]["red"]
    assert (red["production_pixels"], red["shadow_pixels"], red["iou"]) == (60 * 100, 0, 0)
    assert told["agreement"] == pytest.approx(1 - 6000 / 22500)
    assert told["confusions"] == [{"production": "red", "shadow": "green", "count": 6000}]
    shares = [f["properties"]["disagrees"] for f in json.loads(diff.read_text())["features"]]
    assert len(shares) == told["windows"] and max(shares) == 1 and min(shares) == 0
    done = await asyncio.to_thread(cli, frond, "models", "compare", "masks")
    assert done.returncode == 0 and "Pixels that agree" in done.stdout
