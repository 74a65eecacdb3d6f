from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from frond.contracts.errors import RasterRejected, StoreUnavailable
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import DecoderSpec, InputSpec, ModelManifest
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.raster import PlanRequest, inspect, open_raster
from frond.raster.slow import free_bytes, total_bytes
from frond.tiler.reading import Copied, Task, _need_room, plan_raster


def task(path: Path, copy_to: Path | None, bands: tuple[int, ...] = (1, 2, 3)) -> Task:
    manifest = ModelManifest(
        name="m",
        decoder=DecoderSpec(name="x"),
        classes=("a",),
        input=InputSpec(size=512),
        bands=bands,
    )
    request = PlanRequest(
        job_id="j", image_id="1" * 32, image="s3://b/k", name="k", uri="s3://b/k", etag="e",
        size=path.stat().st_size, model=ModelRef(name="m", digest="0" * 64), manifest=manifest,
    )  # fmt: skip
    return Task(request, str(path), path.read_bytes()[:512], copy_to)


def test_a_large_picture_is_copied_first(tmp_path: Path) -> None:
    """It decodes from the top each time; the copy is planned, and is not copied again."""
    path, copy = tmp_path / "x.jpg", tmp_path / "copy.tif"
    row = np.arange(4200, dtype=np.uint8)[None, None, :].repeat(3, 0)
    with rasterio.open(
        path, "w", driver="JPEG", width=4200, height=4200, count=3, dtype="uint8"
    ) as out:
        out.write(row.repeat(4200, 1))
    made = plan_raster(task(path, copy))
    assert made == Copied(copy)
    plan = plan_raster(task(copy, None))
    assert isinstance(plan, ImagePlan)
    assert (plan.source.width, plan.source.height) == (4200, 4200)
    with pytest.raises(RasterRejected) as e:
        plan_raster(task(path, tmp_path / "other.tif", bands=(1, 2, 5)))
    assert e.value.reason is Reason.MISSING_BANDS
    assert not (tmp_path / "other.tif").exists()


def test_a_small_picture_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    with rasterio.open(path, "w", driver="PNG", width=40, height=30, count=3, dtype="uint8") as out:
        out.write(np.ones((3, 30, 40), np.uint8))
    plan = plan_raster(task(path, tmp_path / "copy.tif"))
    assert isinstance(plan, ImagePlan)
    assert plan.source.uri == "s3://b/k"


def test_room_for_a_copy(tmp_path: Path) -> None:
    """A disk that is full just now is waited for; one that would never do is the image's fate."""
    with open_raster(str(_picture(tmp_path))) as ds:
        info = inspect(ds)
    free, whole = free_bytes(tmp_path), total_bytes(tmp_path)
    assert 0 < free <= whole
    _need_room(info, tmp_path)
    with pytest.raises(RasterRejected) as e:
        _need_room(replace(info, width=1 << 40, height=1 << 20), tmp_path)
    assert e.value.reason is Reason.TOO_LARGE
    between = replace(info, width=(free + whole) // 2 // info.count, height=1)
    if free + (2 << 30) < whole:
        with pytest.raises(StoreUnavailable):
            _need_room(between, tmp_path)


def _picture(folder: Path) -> Path:
    path = folder / "small.png"
    with rasterio.open(path, "w", driver="PNG", width=40, height=30, count=3, dtype="uint8") as out:
        out.write(np.ones((3, 30, 40), np.uint8))
    return path
