"""Segmentation: from a raster's windows to stored masks, on a real graph and a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
import rasterio
from numpy.typing import NDArray
from pydantic import SecretStr
from rasterio.transform import from_origin

from frond.contracts import keys
from frond.contracts.events import ChunkPlanned
from frond.contracts.jobs import ModelRef
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.inference.pipeline import Runner, Spent
from frond.inference.results import detections_in, run
from frond.inference.settings import InferenceSettings
from frond.inference.wiring import Inference
from frond.masks import MaskFile, check, masks
from frond.models import planes_of
from frond.models.session import Arrays, ModelSession
from frond.models.testing import colour_model
from frond.raster import PlanRequest, RasterReader, chunks_of, inspect, open_raster, plan_image
from frond.stack import Endpoints
from frond.store import ObjectStore

KEY = "uploads/land.tif"
RED, GREEN, BACKGROUND = 0, 1, 2


def draw(path: Path, width: int, height: int, hole: bool = True) -> NDArray[np.int8]:
    """A GeoTIFF of grey with red and green circles; the class of each pixel, -1 for nodata."""
    y, x = np.mgrid[:height, :width]
    classes = np.full((height, width), BACKGROUND, np.int8)
    pixels = np.random.default_rng(1).integers(60, 110, (3, height, width)).astype(np.uint8)
    for k, (cx, cy, r) in enumerate(
        [(0.3, 0.3, 0.25), (0.7, 0.6, 0.3), (0.2, 0.9, 0.15), (0.95, 0.1, 0.2)]
    ):
        inside = (x - cx * width) ** 2 + (y - cy * height) ** 2 < (r * min(width, height)) ** 2
        classes[inside] = k % 2
        pixels[:, inside] = 0
        pixels[k % 2, inside] = 255
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=3, dtype="uint8",
        crs="EPSG:32650", transform=from_origin(500_000, 100_000, 0.5, 0.5), tiled=True,
        blockxsize=64, blockysize=64,
    ) as out:  # fmt: skip
        out.write(pixels)
        if hole:
            valid = np.full((height, width), 255, np.uint8)
            valid[height // 2 :, : width // 3] = 0
            out.write_mask(valid)
            classes[valid == 0] = -1
    return classes


def plan_of(path: Path, session: ModelSession, windows: int = 6, **over: Any) -> ImagePlan:
    with open_raster(str(path)) as dataset:
        said: dict[str, Any] = {
            "job_id": "j", "image_id": "1" * 32, "image": "s3://bucket/i.tif", "name": "i",
            "uri": str(path), "etag": "e", "size": path.stat().st_size,
            "model": ModelRef(name="colours", digest="0" * 64), "manifest": session.manifest,
            "windows_per_chunk": windows,
        }  # fmt: skip
        return plan_image(dataset, inspect(dataset), PlanRequest(**(said | over)))


def results(path: Path, session: ModelSession, windows: int = 6) -> tuple[ImagePlan, list[bytes]]:
    plan, runner, made = plan_of(path, session, windows), Runner(), []
    for chunk in chunks_of(plan):
        with RasterReader(plan.source, plan.grid, layout=session.layout) as reader:
            pixels = reader.read_block(chunk.windows)
        finish, spent = run(runner, session, chunk, pixels, session.manifest.thresholds)
        assert spent.run > 0 and spent.decode > 0
        result = finish(1)
        assert result.detections == 0
        made.append(result.data)
    runner.close()
    return plan, made


def same_classes(plan: ImagePlan, made: Sequence[bytes], truth: NDArray[np.int8]) -> None:
    """Every pixel of every window is of the class that was drawn, or means nothing."""
    seen = np.zeros(truth.shape, bool)
    for data in made:
        with MaskFile.of(data) as file:
            for window in file.windows:
                box, planes = plan.grid.window(window), file.planes(window)
                here = truth[box.y0 : box.y1, box.x0 : box.x1]
                seen[box.y0 : box.y1, box.x0 : box.x1] = True
                assert planes.shape == (3, *here.shape)
                assert (planes[:, here < 0] == 0).all()
                assert (planes[2][here >= 0] > 0).all()
                for k in (RED, GREEN, BACKGROUND):
                    assert (planes[k][here == k] >= 250).all()
    assert seen[truth >= 0].all()


@pytest.mark.parametrize("size", [(200, 150), (64, 64), (40, 30), (300, 50)])
@pytest.mark.parametrize("hole", [True, False])
def test_every_pixel_gets_its_class(tmp_path: Path, size: tuple[int, int], hole: bool) -> None:
    """In every window that sees it, images smaller than a window too; nodata means nothing."""
    truth = draw(tmp_path / "land.tif", *size, hole)
    session = ModelSession(colour_model(tmp_path / "m"), batch=3)
    plan, made = results(tmp_path / "land.tif", session)
    same_classes(plan, made, truth)


def test_masks_of_resampled_windows_are_of_scaled_pixels(tmp_path: Path) -> None:
    """At twice the model's GSD: planes are as large as the grid's windows, and so are circles."""
    truth = draw(tmp_path / "land.tif", 200, 150)
    session = ModelSession(colour_model(tmp_path / "m", gsd_m=1.0))
    plan, made = results(tmp_path / "land.tif", session)
    assert 0.49 < plan.grid.scale < 0.51
    ys, xs = (
        np.minimum((np.arange(n) + 0.5) / plan.grid.scale, most - 1).astype(int)
        for n, most in zip((plan.grid.height, plan.grid.width), truth.shape, strict=True)
    )
    scaled, right, valid = truth[np.ix_(ys, xs)], 0, 0
    for data in made:
        with MaskFile.of(data) as file:
            for window in file.windows:
                box, planes = plan.grid.window(window), file.planes(window)
                assert planes.shape == (3, box.height, box.width)
                here = scaled[box.y0 : box.y1, box.x0 : box.x1]
                both = (here >= 0) & (planes[2] > 0)
                right += int((planes.argmax(axis=0) == here)[both].sum())
                valid += int(both.sum())
    # what is left lies on edges
    assert valid > 5000 and right > 0.97 * valid


def test_the_same_chunk_gives_the_same_masks(tmp_path: Path) -> None:
    """Twice, with other sessions: byte for byte; the batch changes nothing that is meant."""
    draw(tmp_path / "land.tif", 200, 150)
    folder = colour_model(tmp_path / "m")
    _, first = results(tmp_path / "land.tif", ModelSession(folder, batch=4))
    _, again = results(tmp_path / "land.tif", ModelSession(folder, batch=4))
    _, single = results(tmp_path / "land.tif", ModelSession(folder, batch=1))
    assert first == again
    for a, b in zip(first, single, strict=True):
        with MaskFile.of(a) as one, MaskFile.of(b) as other:
            for w in one.windows:
                far = one.planes(w).astype(int) - other.planes(w)
                assert np.abs(far).max() <= 1


class Counted(ModelSession):
    """Counts its runs."""

    runs = 0

    def infer(self, prepared: NDArray[Any], windows: int, *, beside: bool = False) -> Arrays:
        self.runs += 1
        return super().infer(prepared, windows, beside=beside)


def test_a_chunk_is_never_held_as_a_whole(tmp_path: Path) -> None:
    """Results are handed out while the next batch runs, not after the last one."""
    draw(tmp_path / "land.tif", 200, 150)
    session = Counted(colour_model(tmp_path / "m"), batch=1)
    plan = plan_of(tmp_path / "land.tif", session, 12)
    chunk = next(iter(chunks_of(plan)))
    with RasterReader(plan.source, plan.grid, layout=session.layout) as reader:
        pixels = reader.read_block(chunk.windows)
    runner, session.runs, ahead = Runner(), 0, []
    found = runner.results(session, [p.data for p in pixels], session.manifest.thresholds, Spent())
    planes = (one for result in found for one in planes_of([result]))
    for taken, _ in enumerate(masks(planes, pixels, plan.grid), 1):
        ahead.append(session.runs - taken)
    runner.close()
    assert session.runs == len(pixels) > 8
    assert max(ahead) <= 1


@dataclass
class Bench:
    """The service, and one image planned into chunks."""

    inference: Inference
    store: ObjectStore
    model: ModelRef
    plan: ImagePlan
    chunks: list[ChunkPlanned]
    truth: NDArray[np.int8]

    def key(self, chunk: ChunkPlanned) -> str:
        return keys.chunk_result(chunk.job_id, chunk.image_id, chunk.chunk_id)


@pytest_asyncio.fixture
async def bench(stack: Endpoints, bucket: str, tmp_path: Path) -> AsyncIterator[Bench]:
    inference = Inference(
        InferenceSettings(
            s3_endpoint=stack.s3_endpoint, s3_access_key=stack.access_key,
            s3_secret_key=SecretStr(stack.secret_key), s3_bucket=bucket,
            cache_dir=tmp_path / "cache", default_model="colours", batch=2,
            api_key=SecretStr("secret"),
        )
    )  # fmt: skip
    store, path = inference.store, tmp_path / "land.tif"
    model = await inference.registry.push(colour_model(tmp_path / "model"))
    truth = draw(path, 200, 150)
    await store.put_file(KEY, path)
    there = await store.stat(KEY)
    plan = plan_of(
        path, await inference.models.get(model), image=store.uri(KEY), uri=store.uri(KEY),
        etag=there.etag, model=model,
    )  # fmt: skip
    yield Bench(inference, store, model, plan, list(chunks_of(plan)), truth)
    inference.close()


@pytest.mark.stack
async def test_chunks_become_masks(bench: Bench) -> None:
    """One object a chunk, which says whose it is; the event counts windows and no detections."""
    stored = []
    for chunk in bench.chunks:
        told = await bench.inference.worker.handle(chunk)
        assert told.reason is None, told.detail
        assert told.result == bench.key(chunk)
        assert told.detections == 0
        assert told.windows.total == told.windows.done == len(chunk.windows)
        stored.append(await bench.store.get(told.result))
        about = check(stored[-1])
        assert about["model_digest"] == bench.model.digest
        assert about["plan_digest"] == bench.plan.plan_digest
        assert about["windows"] == str(len(chunk.windows))
        with MaskFile.of(stored[-1]) as file:
            assert tuple(file.windows) == chunk.windows
    same_classes(bench.plan, stored, bench.truth)


@pytest.mark.stack
async def test_a_repeated_chunk_of_masks_is_one_result(bench: Bench) -> None:
    """The second run computes nothing; without the object it makes the same bytes, also when two
    run at once; what is no result is no success."""
    chunk, worker, plain = bench.chunks[0], bench.inference.worker, {"timings"}
    first = await worker.handle(chunk)
    raw = await bench.store.get(bench.key(chunk))
    again = await worker.handle(chunk)
    assert again.timings.run == 0
    assert again.model_dump(exclude=plain) == first.model_dump(exclude=plain)
    await bench.store.delete(bench.key(chunk))
    both = await asyncio.gather(*(worker.handle(chunk) for _ in range(2)))
    assert [b.model_dump(exclude=plain) for b in both] == [first.model_dump(exclude=plain)] * 2
    assert await bench.store.get(bench.key(chunk)) == raw
    for damaged in (raw[: len(raw) // 2], b"", raw[:-40] + bytes(40)):
        with pytest.raises(ValueError, match="Arrow"):
            detections_in(damaged)


@pytest.mark.stack
async def test_predict_sends_a_segmentation_model_to_jobs(bench: Bench) -> None:
    """Before the image is even looked at, in a sentence that says where to go."""
    transport = httpx.ASGITransport(bench.inference.app())
    auth = {"Authorization": "Bearer secret"}
    async with httpx.AsyncClient(transport=transport, base_url="http://t", headers=auth) as client:
        answer = await client.post("/predict", content=b"anything")
    assert answer.status_code == 422
    told = answer.json()
    assert told["reason"] == Reason.BAD_MODEL
    assert "colours is a model for segmentation" in told["detail"]
    assert "job" in told["detail"]
