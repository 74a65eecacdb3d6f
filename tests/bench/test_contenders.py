"""What Frond's whole system is measured against does its work as well as it can."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import scene
from contenders import bare_loop
from contenders.chunks import Chunk, Found, detected
from frond.contracts.jobs import ModelRef
from frond.inference.pipeline import Runner
from frond.models.session import ModelSession
from frond.models.testing import blob_model
from frond.raster import PlanRequest, RasterReader, chunks_of, inspect, open_dataset, plan_image
from frond.store import ObjectStore, StoreSettings

_IMAGES = 6


@pytest.fixture
def session(tmp_path: Path) -> ModelSession:
    return ModelSession(blob_model(tmp_path / "m"), threads=2, batch=1)


def _in_pairs(session: ModelSession) -> None:
    """From now on two runs at once, and a lone one fails."""
    session.share(2)
    infer, together = session.infer, threading.Barrier(2, timeout=20)

    def held(prepared: np.ndarray, n: int, *, beside: bool = False) -> dict[str, np.ndarray]:
        together.wait()
        return infer(prepared, n, beside=beside)

    session.infer = held  # type: ignore[method-assign]


def _chunks(session: ModelSession, folder: Path) -> Iterator[Chunk]:
    """Of images of one window each."""
    for n in range(_IMAGES):
        path = folder / f"{n}.tif"
        path.write_bytes(scene.blob_file(n))
        size = path.stat().st_size
        request = PlanRequest(
            job_id="bench", image_id=f"{n:032x}", image=str(path), name=path.name, uri=str(path),
            etag="-", size=size, manifest=session.manifest,
            model=ModelRef(name="blob", digest="0" * 64),
        )  # fmt: skip
        with closing(open_dataset(str(path))) as dataset:
            plan = plan_image(dataset, inspect(dataset, size), request)
            reader = RasterReader(plan.source, plan.grid, dataset=dataset, layout=session.layout)
            for chunk in chunks_of(plan):
                yield Chunk(plan, reader.read_block(chunk.windows), last=True)


def _bytes(found: Found) -> list[bytes]:
    parts = (found.detections.boxes, found.detections.scores, found.detections.classes)
    return [part.tobytes() for part in parts]


def test_chunks_of_a_window_run_beside_each_other(session: ModelSession, tmp_path: Path) -> None:
    """Where a model is fastest with two runs at once, two go on, each its part of the cores; finds
    come in the chunks' order with the same bytes, and no more pixels are held than that takes."""
    runner = Runner()
    alone = [_bytes(f) for f in detected(runner, session, _chunks(session, tmp_path))]
    _in_pairs(session)
    read, handed = 0, 0

    def counted() -> Iterator[Chunk]:
        nonlocal read
        for chunk in _chunks(session, tmp_path):
            read += 1
            assert read - handed <= 3
            yield chunk

    found = []
    for one in detected(runner, session, counted()):
        handed += 1
        found.append(one)
    runner.close()
    assert [f.plan.image_id for f in found] == [f"{n:032x}" for n in range(_IMAGES)]
    assert [_bytes(f) for f in found] == alone
    assert [len(f.detections) for f in found] == [3] * _IMAGES


@pytest.mark.stack
def test_the_bare_loop_uses_all_cores_for_small_images(
    session: ModelSession,
    service_env: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An image of one window is run beside the next one, as the inference service does it; what is
    stored has the same bytes as one after another."""
    monkeypatch.setattr(bare_loop, "_session", lambda folder: session)
    store = ObjectStore(StoreSettings(
        service_env["FROND_S3_ENDPOINT"], service_env["FROND_S3_ACCESS_KEY"],
        service_env["FROND_S3_SECRET_KEY"], service_env["FROND_S3_BUCKET"],
    ))  # fmt: skip

    async def fill() -> None:
        for n in range(_IMAGES):
            await store.put(f"rasters/{n}.tif", scene.blob_file(n), "image/tiff")

    async def stored() -> dict[str, bytes]:
        keys = [item.key async for item in store.list("") if not item.key.startswith("rasters/")]
        return {key: await store.get(key) for key in keys}

    with closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(fill())
        bare = bare_loop._Bare(service_env, tmp_path / "m", loop)
        told = bare.work("rasters/")
        alone = loop.run_until_complete(stored())
        _in_pairs(session)
        again = bare.work("rasters/")
        together = loop.run_until_complete(stored())
    assert told["windows"] == again["windows"] == _IMAGES
    assert told["kept"] == again["kept"] == 3 * _IMAGES
    assert len(alone) > _IMAGES and together == alone
