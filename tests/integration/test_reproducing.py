"""``frond reproduce``: a job run again gives the same bytes, and what does not is told."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import httpx
import numpy as np
import pytest
from rasterio.io import MemoryFile

from frond.bus import EventProducer, Outgoing
from frond.contracts import topics
from frond.contracts.events import ImageUploaded
from frond.store import ObjectStore
from support.kafka import completed
from support.planted import MAGENTA, planted

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def reproduce(frond: Any, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **frond.env, "FROND_API_URL": frond.url("ingest")}
    return subprocess.run(
        [sys.executable, "-c", "from frond.client.cli import main; main()", "reproduce", *args],
        env=env, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def large_png() -> bytes:
    """More pixels than are read from a PNG itself: the tiler makes a tiled copy."""
    pixels = np.full((3, 4001, 4001), 90, np.uint8)
    pixels[:, 700:716, 900:916] = np.array(MAGENTA)[:, None, None]
    with MemoryFile() as memory:
        with memory.open(driver="PNG", width=4001, height=4001, count=3, dtype="uint8") as sink:
            sink.write(pixels)
        return bytes(memory.read())


async def test_a_job_run_again(frond: Any, store: ObjectStore) -> None:
    """Good and bad images, one read by a copy: every byte is the same. A raster that has changed since is named, with
    what is different about it; the new job is gone afterwards, unless it is to be kept
    or was there before."""
    images = {"a.tif": planted("a.tif", 1).data, "é b.tif": planted("b.tif", 2, side=600).data,
              "text.tif": b"this is no raster", "large.png": large_png()}  # fmt: skip
    for name, data in images.items():
        await store.put(f"again/{name}", data)
    async with httpx.AsyncClient(
        base_url=frond.url("ingest"), headers={"Authorization": "Bearer test-key"}, timeout=60
    ) as http:
        spec = {"job_id": "first", "size": 4, "thresholds": {"score": 0.4}}
        (await http.post("/jobs", json=spec)).raise_for_status()
        named = [{"image": store.uri(f"again/{n}"), "name": n} for n in images]
        (await http.post("/jobs/first/images", json={"images": named})).raise_for_status()
        event = await completed(frond.env, "first")
        assert event["images"] == {"expected": 4, "completed": 3, "failed": 1}

        # part of the images' addresses, too
        done = await asyncio.to_thread(reproduce, frond, "first", "--as", "again", "--json")
        assert done.returncode == 0, (done.stdout, done.stderr)
        told = json.loads(done.stdout)
        assert (told["images"], told["files"], told["differences"]) == (4, 12, [])
        assert (await http.get("/jobs/again")).status_code == 404

        await store.put("again/a.tif", planted("a.tif", 3).data)
        mine = await http.post("/jobs", json={"job_id": "mine"})
        mine.raise_for_status()
        done = await asyncio.to_thread(reproduce, frond, "first", "--as", "mine")
        assert done.returncode == 2 and "another job" in done.stderr
        assert (await http.get("/jobs/mine")).status_code == 200

        keep = ("first", "--as", "third", "--keep", "--json")
        done = await asyncio.to_thread(reproduce, frond, *keep)
        assert done.returncode == 1, (done.stdout, done.stderr)
        told = json.loads(done.stdout)["differences"]
        assert {d["image"] for d in told} == {"a.tif"}
        assert any(d["file"] == "" and d["what"].startswith("checksum was") for d in told)
        assert any(d["file"] == "coco.json" and d["what"].startswith("byte") for d in told)
        assert any(d["file"].endswith(".parquet") and d["what"].startswith("row") for d in told)
        assert (await http.get("/jobs/third")).status_code == 200
        # it has ended: compared once more. It may be anybody's
        done = await asyncio.to_thread(reproduce, frond, "first", "--as", "third")
        assert done.returncode == 1, (done.stdout, done.stderr)
        assert "a.tif" in done.stdout and "b.tif" not in done.stdout
        assert "frond delete third" in done.stderr
        # of the same images, and run with other thresholds
        spec = {"job_id": "other", "size": 4, "thresholds": {"score": 0.5}}
        (await http.post("/jobs", json=spec)).raise_for_status()
        (await http.post("/jobs/other/images", json={"images": named})).raise_for_status()
        await completed(frond.env, "other")
        for taken, why in (("first", "to be reproduced"), ("other", "another model, thresholds")):
            done = await asyncio.to_thread(reproduce, frond, "first", "--as", taken)
            assert done.returncode == 2 and why in done.stderr, done.stderr
        for job in ("first", "third", "other"):
            assert (await http.get(f"/jobs/{job}")).status_code == 200

        done = await asyncio.to_thread(reproduce, frond, "nobody")
        assert done.returncode == 2
        assert "nobody" in done.stderr and done.stderr.count("\n") == 1


async def test_what_the_ingest_topic_alone_can_say(frond: Any, store: ObjectStore) -> None:
    """An image with thresholds of its own, and one that asked for another model, are not sent again: they
    would differ for that alone, and nothing has changed."""
    for n, name in enumerate(("as-the-job", "own-thresholds", "other-model")):
        await store.put(f"topical/{name}.tif", planted(name, n).data)
    images: dict[str, dict[str, Any]] = {
        "as-the-job": {}, "own-thresholds": {"thresholds": {"score": 0.9}},
        "other-model": {"model": "another"},
    }  # fmt: skip
    async with httpx.AsyncClient(
        base_url=frond.url("ingest"), headers={"Authorization": "Bearer test-key"}, timeout=60
    ) as http:
        spec = {"job_id": "topical", "size": 3, "thresholds": {"score": 0.4}}
        (await http.post("/jobs", json=spec)).raise_for_status()
    env = frond.env
    producer = EventProducer(env["FROND_KAFKA_BOOTSTRAP"], env["FROND_TOPIC_PREFIX"], "/test")
    await producer.start()
    await producer.send([
        Outgoing(topics.UPLOADED, ImageUploaded.model_validate(
            {"job_id": "topical", "image": store.uri(f"topical/{name}.tif"), **said}))
        for name, said in images.items()
    ])  # fmt: skip
    await producer.stop()
    event = await completed(env, "topical")
    assert [f["reason"] for f in event["failures"]] == ["conflict"]
    done = await asyncio.to_thread(reproduce, frond, "topical", "--json")
    assert done.returncode == 0, (done.stdout, done.stderr)
    told = json.loads(done.stdout)
    assert (told["images"], told["not_sent"], told["differences"]) == (1, 2, [])
