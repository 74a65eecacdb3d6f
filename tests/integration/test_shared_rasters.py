"""Rasters of many kinds, good and broken, in one job each: a result or a precise reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from frond.bus import EventProducer, Outgoing
from frond.contracts import topics
from frond.contracts.events import ImageUploaded
from frond.contracts.reasons import Reason
from frond.store import ObjectStore
from support.kafka import completed
from support.planted import planted

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(900)]


async def run(frond: Any, store: ObjectStore, job: str, files: list[Path]) -> dict[str, Any]:
    """A job of these files and three good scenes; its completed event."""
    uris = []
    for path in files:
        await store.put_file(f"{job}/{path.name}", path)
        uris.append((store.uri(f"{job}/{path.name}"), path.name))
    for i in range(3):
        scene = planted(f"good-{i}.tif", i)
        await store.put(f"{job}/{scene.name}", scene.data)
        uris.append((store.uri(f"{job}/{scene.name}"), scene.name))
    producer = EventProducer(
        frond.env["FROND_KAFKA_BOOTSTRAP"], frond.env["FROND_TOPIC_PREFIX"], "/test"
    )
    await producer.start()
    await producer.send([
        Outgoing(topics.UPLOADED, ImageUploaded(job_id=job, image=u, name=n, job_size=len(uris)))
        for u, n in uris
    ])  # fmt: skip
    await producer.stop()
    event = await completed(frond.env, job, within=600)
    counts = event["images"]
    assert counts["expected"] == len(uris) == counts["completed"] + counts["failed"]
    failed = {f["name"]: f for f in event["failures"]}
    assert not any(name.startswith("good-") for name in failed)
    for failure in failed.values():
        assert failure["reason"] not in (Reason.INTERNAL, Reason.INFERENCE_FAILED), failure
        assert len(failure["detail"]) > 20
        assert "Traceback" not in failure["detail"]
    return event


def rasters(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.rglob("*")
        if p.suffix.lower() in (".tif", ".tiff", ".vrt", ".png") and p.is_file()
    )  # fmt: skip


async def test_valid_rasters(frond: Any, store: ObjectStore, shared_data: Path) -> None:
    """Every valid raster gives a result, or a precise reason; none an internal error."""
    files = rasters(shared_data / "rasters_valid")
    assert len(files) >= 35
    event = await run(frond, store, "valid", files)
    assert event["images"]["completed"] >= len(files) // 2


async def test_malformed_rasters(frond: Any, store: ObjectStore, shared_data: Path) -> None:
    """Every broken raster fails alone, or is read; the good ones beside them complete."""
    files = rasters(shared_data / "rasters_malformed")
    assert len(files) >= 42
    event = await run(frond, store, "malformed", files)
    assert event["images"]["failed"] >= 29
