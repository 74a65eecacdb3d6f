"""Every real raster gives windows or a precise reason; every broken one fails alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from frond.contracts.errors import RasterRejected
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.raster import RasterReader, chunks_of

PlanOf = Callable[..., ImagePlan]


def run(path: Path, plan_of: PlanOf, model: Any) -> ImagePlan:
    plan = plan_of(path, model)
    done = 0
    with RasterReader(plan.source, plan.grid) as reader:
        for chunk in chunks_of(plan):
            for window in reader.read_block(chunk.windows):
                assert window.data.shape == (len(plan.source.bands), 512, 512)
                done += 1
    assert done + plan.windows_skipped == plan.grid.count
    return plan


def test_valid_rasters(shared_data: Path, plan_of: PlanOf, manifest: Any) -> None:
    """A model of one band takes them all, but for the VRTs; one of three says what is missing."""
    one, three = manifest(bands=(1,), size=512, margin=64), manifest(size=512, margin=64)
    files = sorted(p for p in (shared_data / "rasters_valid").rglob("*.tif*"))
    assert len(files) > 30
    for path in files:
        run(path, plan_of, one)
        try:
            run(path, plan_of, three)
        except RasterRejected as e:
            assert e.reason is Reason.MISSING_BANDS, path.name
    for path in sorted((shared_data / "rasters_valid").rglob("*.vrt")):
        with pytest.raises(RasterRejected) as caught:
            plan_of(path, one)
        assert caught.value.reason is Reason.DRIVER_NOT_ALLOWED


def test_malformed_rasters(shared_data: Path, plan_of: PlanOf, manifest: Any) -> None:
    """Read or rejected with a sentence; nothing else ever comes out."""
    one = manifest(bands=(1,), size=512, margin=64)
    rejected = 0
    for path in sorted((shared_data / "rasters_malformed").glob("*.tif*")):
        try:
            run(path, plan_of, one)
        except RasterRejected as e:
            rejected += 1
            assert e.reason in (Reason.CORRUPT, Reason.TRUNCATED, Reason.TOO_LARGE), path.name
            assert e.detail.endswith(".") and len(e.detail) < 400
            assert str(shared_data) not in e.detail
    assert rejected > 25


def test_memory_of_a_large_world(shared_data: Path, plan_of: PlanOf, manifest: Any) -> None:
    """36,000 × 18,000 pixels in 2.9 MB are planned with most of the sea left out."""
    path = shared_data / "rasters_valid/rio-tiler/cog_world.tif"
    plan = plan_of(path, manifest(bands=(1,), size=512, margin=64))
    assert 0 < plan.windows_skipped < plan.grid.count
