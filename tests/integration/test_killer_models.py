"""Runs of models that end the process they are in, in a whole installation."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from rasterio.io import MemoryFile

from frond.inference.deaths import MOST_ALONE
from frond.store import ObjectStore
from support import deadly_inference
from support.kafka import completed
from support.planted import planted

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def deadly(good: bytes) -> bytes:
    """A raster with one pixel at which the model's run ends its process."""
    with MemoryFile(good) as memory, memory.open() as dataset:
        profile, pixels = dataset.profile, dataset.read()
    pixels[:, 0, 0] = np.array(deadly_inference.DEADLY)
    with MemoryFile() as memory:
        with memory.open(**profile) as out:
            out.write(pixels)
        return bytes(memory.read())


def start(env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, deadly_inference.__file__], env=env, stdout=out, stderr=out
        )


async def lives_until_completed(
    frond: Any, job: str, log: Path, **more: str
) -> tuple[dict[str, Any], int]:
    """The job's completed event, and how often the service died before it: it is begun again each
    time, as Compose and Kubernetes do."""
    env = {**os.environ, **frond.env, "FROND_HTTP_PORT": str(frond.ports["inference"]), **more}
    ended = asyncio.create_task(completed(frond.env, job))
    deaths = 0
    try:
        while True:
            process = frond.processes["inference"] = start(env, log)
            died = asyncio.create_task(asyncio.to_thread(process.wait))
            await asyncio.wait({ended, died}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                process.kill()
                await died
                return await ended, deaths
            assert died.result() == -9, log.read_text()[-4000:]
            deaths += 1
    finally:
        ended.cancel()


async def send(frond: Any, store: ObjectStore, job: str, images: dict[str, bytes]) -> None:
    producer = Producer({"bootstrap.servers": frond.env["FROND_KAFKA_BOOTSTRAP"]})
    for name, data in images.items():
        await store.put(f"in/{job}/{name}", data)
        event = {
            "job_id": job, "image": store.uri(f"in/{job}/{name}"), "job_size": len(images)
        }  # fmt: skip
        producer.produce(frond.env["FROND_TOPIC_PREFIX"] + "frond.uploaded.v1", json.dumps(event))
    assert producer.flush(30) == 0


async def test_one_image_fails_and_the_others_are_completed(
    frond: Any, store: ObjectStore, tmp_path: Path
) -> None:
    """An image at which every worker dies is given up, with its reason, after a bounded number of
    deaths; what ran beside it, and what waited behind it, of its job and of others, is done."""
    frond.kill("inference")
    goods = {f"good-{n}.tif": planted(f"good-{n}", n).data for n in range(4)}
    bad = {"bad.tif": deadly(planted("bad", 9).data)}
    await send(frond, store, "mixed", goods | bad)
    await send(frond, store, "beside", goods)
    ended, died = await lives_until_completed(frond, "mixed", tmp_path / "inference.log")
    assert ended["images"] == {"expected": 5, "completed": 4, "failed": 1}
    (failure,) = ended["failures"]
    assert failure["image"].endswith("/bad.tif")
    assert failure["reason"] == "inference-failed"
    assert "process ended" in failure["detail"]
    assert died == 1 + MOST_ALONE
    ended, died = await lives_until_completed(frond, "beside", tmp_path / "inference.log")
    assert ended["images"] == {"expected": 4, "completed": 4, "failed": 0}
    assert died == 0


async def test_a_model_that_always_kills_does_not_do_so_for_each_image(
    frond: Any, store: ObjectStore, tmp_path: Path
) -> None:
    """A model for which there is not enough memory: its job fails after a bounded number of deaths,
    however many images it has."""
    frond.kill("inference")
    images = {f"{n}.tif": planted(f"{n}", n).data for n in range(12)}
    await send(frond, store, "deadly", images)
    ended, died = await lives_until_completed(
        frond, "deadly", tmp_path / "inference.log", DEADLY_ALL="1"
    )
    assert ended["images"] == {"expected": 12, "completed": 0, "failed": 12}
    assert {f["reason"] for f in ended["failures"]} == {"inference-failed"}
    assert died <= 3 * MOST_ALONE
