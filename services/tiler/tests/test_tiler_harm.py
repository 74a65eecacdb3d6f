"""Rasters that kill their reader, never let it go, or eat its memory, on the real store."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from pydantic import SecretStr
from rasterio.io import MemoryFile

from frond.bus import EventProducer
from frond.contracts.errors import RasterRejected
from frond.contracts.events import ImageUploaded
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.models.registry import Registry
from frond.models.testing import blob_model
from frond.raster import configure_gdal
from frond.raster.sandbox import Sandbox
from frond.stack import Endpoints
from frond.store import ObjectStore, StoreSettings
from frond.tiler.reading import Copied, ModelNeeded, Task, plan_raster
from frond.tiler.settings import TilerSettings
from frond.tiler.wiring import Tiler

pytestmark = pytest.mark.stack

_MEMORY_MB: Final = 1024
_HARM: Final = {
    "segfault.tif": Reason.READER_DIED,
    "endless.tif": Reason.READ_TIMEOUT,
    "greedy.tif": Reason.TOO_LARGE,
}


def tiff(fill: int) -> bytes:
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", width=300, height=300, count=3, dtype="uint8") as out:
            out.write(np.full((3, 300, 300), fill, np.uint8))
        return bytes(memory.read())


def harmful(task: Task) -> ImagePlan | Copied | ModelNeeded:
    """What a reader process does: as a decoder with a fault in it would, by the image's name."""
    if task.request.image.endswith("segfault.tif"):
        ctypes.string_at(0)
    while task.request.image.endswith("endless.tif"):
        pass
    if task.request.image.endswith("greedy.tif"):
        np.ones(_MEMORY_MB << 18)  # eight bytes each
    return plan_raster(task)


class Harmful(Sandbox):
    """Readers that some rasters do harm; counts those that were lost."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        super().__init__(2, memory_mb=_MEMORY_MB, lost=self.lost.append)

    async def run(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        assert call is plan_raster
        return await super().run(harmful, *args, **kwargs)


async def test_each_is_rejected_and_the_rest_does_not_notice(
    stack: Endpoints, bucket: str, tmp_path: Path
) -> None:
    """A reader that dies twice, that takes too long, or asks for more memory than it may have
    rejects its image, with its reason; those beside them are planned, by the same tiler."""
    settings = TilerSettings(
        s3_endpoint=stack.s3_endpoint, s3_access_key=stack.access_key,
        s3_secret_key=SecretStr(stack.secret_key), s3_bucket=bucket, default_model="blob",
        tiler_timeout_s=5,
    )  # fmt: skip
    configure_gdal(stack.s3_endpoint, stack.access_key, stack.secret_key)
    store = ObjectStore(
        StoreSettings(stack.s3_endpoint, stack.access_key, stack.secret_key, bucket)
    )
    await Registry(store).push(blob_model(tmp_path / "blob"))
    names = [*_HARM, "good.tif", "better.tif"]
    for i, name in enumerate(names):
        await store.put(f"in/{name}", tiff(10 + i))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    sandbox = Harmful()
    tiler = Tiler(settings, store, EventProducer("", "", "/test"), sandbox, scratch)

    async def plan(name: str) -> ImagePlan | RasterRejected:
        event = ImageUploaded(job_id="j", image=store.uri(f"in/{name}"))
        try:
            return await tiler.planner.plan(event, await tiler.jobs.pinned(event))
        except RasterRejected as e:
            return e

    try:
        made = dict(zip(names, await asyncio.gather(*map(plan, names)), strict=True))
    finally:
        sandbox.close()
        store.close()
    reasons = {n: m.reason for n, m in made.items() if isinstance(m, RasterRejected)}
    assert reasons == _HARM
    assert sandbox.lost.count("died") == 2
    assert "timeout" in sandbox.lost
    assert not list(scratch.iterdir())
