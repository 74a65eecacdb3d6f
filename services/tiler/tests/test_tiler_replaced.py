"""An image that is replaced while its tiled copy is made, on the real store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from rasterio.io import MemoryFile

from frond.bus import EventProducer
from frond.contracts.errors import RasterRejected
from frond.contracts.events import ImageUploaded
from frond.contracts.reasons import Reason
from frond.models.registry import Registry
from frond.models.testing import blob_model
from frond.raster import configure_gdal
from frond.raster.sandbox import Sandbox
from frond.stack import Endpoints
from frond.store import ObjectStore, StoreSettings
from frond.tiler.reading import Copied
from frond.tiler.settings import TilerSettings
from frond.tiler.wiring import Tiler

pytestmark = pytest.mark.stack

KEY = "in/big.jpg"


def jpeg(fill: int) -> bytes:
    """One that is slow to read in windows."""
    with MemoryFile() as memory:
        with memory.open(driver="JPEG", width=4200, height=4000, count=3, dtype="uint8") as out:
            out.write(np.full((3, 4000, 4200), fill, np.uint8))
        return bytes(memory.read())


class Replacing(Sandbox):
    """Readers beside which somebody uploads another image each time a copy is made."""

    def __init__(self, store: ObjectStore, *uploads: bytes) -> None:
        super().__init__(1)
        self._store = store
        self._uploads = list(uploads)

    async def run(self, *args: Any, **kwargs: Any) -> Any:
        made = await super().run(*args, **kwargs)
        if isinstance(made, Copied) and self._uploads:
            await self._store.put(KEY, self._uploads.pop(0))
        return made


@pytest.mark.parametrize("times", [1, 2])
async def test_a_replaced_image_is_never_planned_on_its_old_copy(
    stack: Endpoints, bucket: str, tmp_path: Path, times: int
) -> None:
    """Replaced once, it is planned anew; while it keeps changing, it is rejected."""
    settings = TilerSettings(
        s3_endpoint=stack.s3_endpoint, s3_access_key=stack.access_key,
        s3_secret_key=SecretStr(stack.secret_key), s3_bucket=bucket, default_model="blob",
    )  # fmt: skip
    configure_gdal(stack.s3_endpoint, stack.access_key, stack.secret_key)
    store = ObjectStore(
        StoreSettings(stack.s3_endpoint, stack.access_key, stack.secret_key, bucket)
    )
    await Registry(store).push(blob_model(tmp_path / "blob"))
    await store.put(KEY, jpeg(10))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    sandbox = Replacing(store, *(jpeg(20 + i) for i in range(times)))
    tiler = Tiler(settings, store, EventProducer("", "", "/test"), sandbox, scratch)
    event = ImageUploaded(job_id="j", image=store.uri(KEY))
    spec = await tiler.jobs.pinned(event)
    try:
        if times == 1:
            plan = await tiler.planner.plan(event, spec)
            assert plan.checksum == (await store.stat(KEY)).etag
        else:
            with pytest.raises(RasterRejected) as e:
                await tiler.planner.plan(event, spec)
            assert e.value.reason is Reason.OBJECT_CHANGED
    finally:
        sandbox.close()
        store.close()
    assert not list(scratch.iterdir())
