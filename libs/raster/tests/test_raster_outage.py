"""Reading from a real object store that goes away and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from frond.contracts.errors import RasterRejected, StoreUnavailable
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.raster import RasterReader, configure_gdal, inspect, open_raster
from frond.raster.gdal import gdal_errors
from frond.stack import NativeStack
from frond.store import ObjectStore, StoreSettings

pytestmark = pytest.mark.stack


@pytest.fixture
def gdal_environment() -> Iterator[None]:
    """GDAL is pointed at a store by the environment; other tests get theirs back."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


async def test_an_outage_is_no_damaged_image(
    private_stack: Any,
    gdal_environment: None,
    make_raster: Callable[..., Path],
    plan_of: Callable[..., ImagePlan],
) -> None:
    """The store's absence is told from missing pixels, in the middle of reading too; what was read
    before is read the same afterwards."""
    ends = private_stack.endpoints
    settings = StoreSettings(ends.s3_endpoint, ends.access_key, ends.secret_key, "rasters")
    store = ObjectStore(settings)
    await store.ensure_bucket()
    rng = np.random.default_rng(3)
    path = make_raster(
        rng.integers(0, 255, (3, 3000, 3000), dtype=np.uint8),
        tiled=True, blockxsize=128, blockysize=128,
    )  # fmt: skip
    await store.put_file("a b/ü.tif", path)
    store.close()
    uri = "s3://rasters/a b/ü.tif"
    configure_gdal(ends.s3_endpoint, ends.access_key, ends.secret_key)
    plan = plan_of(path)
    source = plan.source.model_copy(update={"uri": uri})
    with open_raster(uri) as ds:
        assert inspect(ds).width == 3000
    with pytest.raises(RasterRejected) as missing, open_raster("s3://rasters/none.tif"):
        pass
    assert missing.value.reason is Reason.OBJECT_MISSING

    with RasterReader(source, plan.grid) as reader, RasterReader(plan.source, plan.grid) as local:
        last = plan.grid.count - 1
        assert np.array_equal(reader.read(0).data, local.read(0).data)
        private_stack.kill_minio()
        with pytest.raises(StoreUnavailable):
            reader.read(last)
        with pytest.raises(StoreUnavailable), open_raster(uri):
            pass
        private_stack.start_minio()
        assert np.array_equal(reader.read(last).data, local.read(last).data)


def test_damage_behind_an_address_is_still_damage(
    stack: Any,
    bucket: str,
    gdal_environment: None,
    make_raster: Callable[..., Path],
    plan_of: Callable[..., ImagePlan],
) -> None:
    """A file that lacks its end is TRUNCATED while the store is well."""
    from minio import Minio

    path = make_raster(
        np.full((3, 900, 900), 7, np.uint8), tiled=True, blockxsize=128, blockysize=128
    )
    plan = plan_of(path)
    path.write_bytes(path.read_bytes()[:1_000_000])
    client = Minio(
        stack.s3_endpoint.split("://")[1], stack.access_key, stack.secret_key, secure=False
    )
    client.fput_object(bucket, "cut.tif", str(path))
    configure_gdal(stack.s3_endpoint, stack.access_key, stack.secret_key)
    source = plan.source.model_copy(update={"uri": f"s3://{bucket}/cut.tif"})
    with RasterReader(source, plan.grid) as reader, pytest.raises(RasterRejected) as e:
        reader.read(plan.grid.count - 1)
    assert e.value.reason is Reason.TRUNCATED


def test_a_line_that_breaks_while_pixels_are_read_is_no_damage(
    gdal_environment: None, make_raster: Callable[..., Path], tmp_path: Path
) -> None:
    """GDAL says the same of both, "got 0 bytes"; a file that is cut off is still told as such."""
    rng = np.random.default_rng(3)
    path = make_raster(
        rng.integers(0, 255, (3, 2000, 2000), dtype=np.uint8),
        tiled=True, blockxsize=128, blockysize=128,
    )  # fmt: skip
    whole = path.read_bytes()
    window = Window(900, 900, 600, 600)
    with NativeStack(tmp_path / "stack", proxied=True) as stack:
        settings = StoreSettings(
            stack.direct.s3_endpoint, stack.access_key, stack.secret_key, "rasters"
        )
        asyncio.run(_put(settings, {"whole.tif": whole, "cut.tif": whole[: len(whole) // 2]}))
        configure_gdal(stack.s3_endpoint, stack.access_key, stack.secret_key)
        line = stack.proxies["s3"]
        with open_raster("s3://rasters/whole.tif", size=len(whole)) as ds:
            line.disable()
            for _ in range(3):
                with pytest.raises(StoreUnavailable), gdal_errors(reading=True):
                    ds.read(window=window)
        line.enable()
        line.add("limit_data", "downstream", bytes=700_000)
        for _ in range(3):
            with (
                contextlib.suppress(StoreUnavailable),
                open_raster("s3://rasters/whole.tif", size=len(whole)) as ds,
                gdal_errors(reading=True),
            ):
                assert np.array_equal(ds.read(window=window)[:, 0, 0], _pixel(path, 900))
        line.reset()
        with open_raster("s3://rasters/cut.tif", size=len(whole) // 2) as ds:
            for corner in (900, 1400):
                with pytest.raises(RasterRejected) as cut, gdal_errors(reading=True):
                    ds.read(window=Window(corner, corner, 600, 600))
                assert cut.value.reason is Reason.TRUNCATED


async def _put(settings: StoreSettings, objects: dict[str, bytes]) -> None:
    store = ObjectStore(settings)
    await store.ensure_bucket()
    for key, data in objects.items():
        await store.put(key, data)
    store.close()


def _pixel(path: Path, at: int) -> Any:
    with rasterio.open(path) as ds:
        return ds.read(window=Window(at, at, 1, 1))[:, 0, 0]
