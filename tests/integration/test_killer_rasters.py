"""Rasters that kill or hang whoever reads them, in a whole installation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from frond.store import ObjectStore
from support import harmful_inference
from support.kafka import completed
from support.planted import planted

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def start_harmful(env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, harmful_inference.__file__],
            env={**os.environ, **env, "FROND_INFERENCE_READ_TIMEOUT_S": "8"}, stdout=out, stderr=out,
        )  # fmt: skip


async def test_they_fail_alone(frond: Any, store: ObjectStore, tmp_path: Path) -> None:
    """Each is a failure of its job, with its reason; the images beside them are completed by the
    very process that lost its readers to them."""
    frond.kill("inference")
    env = {**frond.env, "FROND_HTTP_PORT": str(frond.ports["inference"])}
    process = frond.processes["inference"] = start_harmful(env, tmp_path / "inference.log")
    await frond.ready("inference")
    sides = {
        "segfault.tif": harmful_inference.SEGFAULT,
        "endless.tif": harmful_inference.ENDLESS,
        "good.tif": 256,
        "better.tif": 400,
    }
    producer = Producer({"bootstrap.servers": env["FROND_KAFKA_BOOTSTRAP"]})
    for number, (name, side) in enumerate(sides.items()):
        await store.put(f"in/{name}", planted(name, number, side=side).data)
        event = {"job_id": "killers", "image": store.uri(f"in/{name}"), "job_size": len(sides)}
        producer.produce(env["FROND_TOPIC_PREFIX"] + "frond.uploaded.v1", json.dumps(event))
    assert producer.flush(30) == 0
    ended = await completed(env, "killers")
    assert ended["images"] == {"expected": 4, "completed": 2, "failed": 2}
    reasons = {f["image"].rsplit("/")[-1]: f["reason"] for f in ended["failures"]}
    assert reasons == {"segfault.tif": "reader-died", "endless.tif": "read-timeout"}
    assert process.poll() is None
