"""Rasters of every kind, made where they are needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import from_origin

from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import DecoderSpec, InputSpec, ModelManifest
from frond.contracts.plan import ImagePlan
from frond.raster import (
    PlanRequest,
    RasterReader,
    chunks_of,
    configure_formats,
    inspect,
    open_raster,
    plan_image,
)

configure_formats()


@pytest.fixture
def manifest() -> Callable[..., ModelManifest]:
    """Makes a small model's manifest: windows of 128 with a margin of 16."""

    def make(**kwargs: Any) -> ModelManifest:
        size = kwargs.pop("size", 128)
        kwargs.setdefault("margin", 16)
        return ModelManifest(
            name="m",
            decoder=DecoderSpec(name="x"),
            classes=("a",),
            input=InputSpec(size=size),
            **kwargs,
        )

    return make


@pytest.fixture
def make_raster(tmp_path: Path) -> Callable[..., Path]:
    """Writes [bands, rows, cols] as a GeoTIFF in UTM 48N at 0.5 m; keywords override."""

    def make(data: np.ndarray, name: str = "r.tif", **kwargs: Any) -> Path:
        path = tmp_path / name
        mask = kwargs.pop("mask", None)
        after = kwargs.pop("after", None)
        profile: dict[str, Any] = {
            "driver": "GTiff",
            "count": data.shape[0],
            "height": data.shape[1],
            "width": data.shape[2],
            "dtype": data.dtype,
            "crs": CRS.from_epsg(32648),
            "transform": from_origin(300_000, 200_000, 0.5, 0.5),
        }
        profile.update(kwargs)
        profile = {k: v for k, v in profile.items() if v is not None}
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as out:
            out.write(data)
            if mask is not None:
                out.write_mask(mask)
            if after is not None:
                after(out)
        return path

    return make


@pytest.fixture
def plan_of(manifest: Callable[..., ModelManifest]) -> Callable[..., ImagePlan]:
    """Plans a local file as the tiler would."""

    def make(path: Path, model: ModelManifest | None = None, **kwargs: Any) -> ImagePlan:
        size = path.stat().st_size
        with open_raster(str(path)) as dataset:
            info = inspect(dataset, size)
            request = PlanRequest(
                job_id="job",
                image_id="1" * 32,
                image="s3://bucket/" + path.name,
                name=path.name,
                uri=str(path),
                etag="etag",
                size=size,
                model=ModelRef(name="m", digest="0" * 64),
                manifest=model or manifest(),
                **kwargs,
            )
            return plan_image(dataset, info, request)

    return make


@pytest.fixture(params=["planned", "read"])
def seen(request: pytest.FixtureRequest, plan_of: Callable[..., ImagePlan]) -> Callable[..., None]:
    """Goes over all of a small file's pixels: when it is planned, as one of several chunks is, or when
    its only chunk is read."""

    def go(path: Path) -> None:
        if request.param == "planned":
            plan_of(path, windows_per_chunk=1)
            return
        plan = plan_of(path)
        with RasterReader(plan.source, plan.grid) as reader:
            for chunk in chunks_of(plan):
                reader.read_block(chunk.windows)

    return go


@pytest.fixture
def scene() -> Callable[..., np.ndarray]:
    """Deterministic noise on a gradient, uint8, never 0: [bands, rows, cols]."""

    def make(bands: int = 3, rows: int = 300, cols: int = 400, seed: int = 7) -> np.ndarray:
        rng = np.random.default_rng(seed)
        ramp = np.linspace(20, 150, cols)[None, None, :] + np.zeros((bands, rows, 1))
        return (ramp + rng.integers(1, 60, (bands, rows, cols))).astype(np.uint8)

    return make
