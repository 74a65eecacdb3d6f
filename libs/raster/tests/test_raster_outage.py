"""Reading from a real object store that goes away and comes back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frond.contracts.errors import RasterRejected, StoreUnavailable
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.raster import RasterReader, configure_gdal, inspect, open_raster
from frond.store import ObjectStore, StoreSettings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]


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
