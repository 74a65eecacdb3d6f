"""A program that knows the contracts and nothing else of Frond."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from support.planted import planted

pytestmark = [pytest.mark.stack, pytest.mark.slow]
HERE = Path(__file__).parent
CONTRACTS = HERE.parents[1] / "contracts"


async def test_it_publishes_and_subscribes(frond: Any, tmp_path: Path) -> None:
    """It gets one completed event that fits the published schema."""
    files = []
    for i in range(4):
        scene = planted(f"o-{i}.tif", i)
        files.append(tmp_path / scene.name)
        files[-1].write_bytes(scene.data)
    env = frond.env
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", str(HERE / "outside_program.py"),
        env["FROND_KAFKA_BOOTSTRAP"], env["FROND_S3_ENDPOINT"], env["FROND_S3_ACCESS_KEY"],
        env["FROND_S3_SECRET_KEY"], env["FROND_S3_BUCKET"], env["FROND_TOPIC_PREFIX"],
        "outside-1", *map(str, files), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 180)
    assert process.returncode == 0
    got = json.loads(out)
    assert got["headers"]["ce_type"] == "frond.job.completed.v1"
    schema = json.loads((CONTRACTS / "schemas/frond.job.completed.v1.json").read_text())
    # optional fields that are not set are left out on the wire
    schema.pop("required", None)
    jsonschema.validate(got["data"], schema)
    assert got["data"]["images"] == {"expected": 4, "completed": 4, "failed": 0}
    assert {a["name"] for a in got["data"]["artifacts"]} >= {
        "coco.json", "coco-results.json", "detections.geojson", "detections.parquet", "summary.json",
    }  # fmt: skip
