"""Planning with a model in the reader: what becomes of an image where the model is the trouble."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from frond.contracts.errors import RasterRejected, StoreUnavailable
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import DecoderSpec, InputSpec, ModelManifest
from frond.contracts.plan import ImagePlan, RasterSource, WindowGrid
from frond.contracts.reasons import Reason
from frond.models.registry import Registry
from frond.raster import PlanRequest
from frond.raster.sandbox import Sandbox
from frond.store import ObjectStore
from frond.tiler.planning import Planner
from frond.tiler.reading import ModelNeeded, Task
from frond.tiler.settings import TilerSettings

REF = ModelRef(name="m", digest="0" * 64)
PLAN = ImagePlan(
    job_id="j", image_id="1" * 32, image="s3://b/k", name="k",
    source=RasterSource(
        uri="s3://b/k", etag="e", size=1, bands=(1,), dtype="uint8", width=9, height=9
    ),
    grid=WindowGrid(width=9, height=9, size=64, margin=8), model=REF, windows_per_chunk=1,
    chunks=1, windows_skipped=0, skipped="", checksum="e",
)  # fmt: skip


class Readers:
    """A sandbox in which a model fails as it is told to."""

    def __init__(self, model: Exception | None = None, without: Exception | None = None) -> None:
        self.model, self.without = model, without
        self.asked: list[Task] = []

    async def run(self, _: Callable[..., Any], task: Task, *__: Any, **___: Any) -> Any:
        self.asked.append(task)
        if task.not_asked is None and task.model is None:
            return ModelNeeded()
        trouble = self.without if task.not_asked is not None else self.model
        if trouble is not None:
            raise trouble
        return PLAN


class Models:
    """A registry that counts how many fetch at once."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.trouble = trouble
        self.now = self.most = 0

    async def fetch(self, _: ModelRef, cache: Path) -> Path:
        if self.trouble is not None:
            raise self.trouble
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        return cache / "model"


def planner(tmp_path: Path, readers: Readers, models: Models | None = None) -> Planner:
    return Planner(
        TilerSettings(cache_dir=tmp_path), cast(ObjectStore, None),
        cast(Registry, models or Models()), cast(Sandbox, readers), tmp_path,
    )  # fmt: skip


def task() -> Task:
    manifest = ModelManifest(
        name="m", decoder=DecoderSpec(name="x"), classes=("a",), input=InputSpec(size=64), margin=8
    )
    request = PlanRequest(
        job_id="j", image_id="1" * 32, image="s3://b/k", name="k", uri="s3://b/k", etag="e",
        size=1, model=REF, manifest=manifest,
    )  # fmt: skip
    return Task(request, "s3://b/k", None, None)


@pytest.mark.parametrize(
    "reason", [Reason.READER_DIED, Reason.UNAVAILABLE, Reason.TOO_LARGE, Reason.READ_TIMEOUT]
)
async def test_a_model_that_brings_its_reader_down_costs_no_image(
    tmp_path: Path, reason: Reason
) -> None:
    """It crashes, or needs more memory or time than a reader or the machine has: the image is planned
    without it."""
    readers = Readers(RasterRejected(reason, "…"))
    assert await planner(tmp_path, readers)._read(task(), 1.0, last=True) == PLAN
    assert [t.not_asked for t in readers.asked] == [None, None, reason.value]


async def test_a_raster_that_is_to_blame_is_rejected(tmp_path: Path) -> None:
    """As it would be without an estimate; what cannot be the model's fault at once."""
    died, cut = (RasterRejected(r, "…") for r in (Reason.READER_DIED, Reason.TRUNCATED))
    with pytest.raises(RasterRejected) as e:
        await planner(tmp_path, Readers(died, died))._read(task(), 1.0, last=True)
    assert e.value is died
    readers = Readers(cut)
    with pytest.raises(RasterRejected) as e:
        await planner(tmp_path, readers)._read(task(), 1.0, last=True)
    assert e.value is cut
    assert len(readers.asked) == 2


async def test_a_slow_line_is_not_the_models_fault(tmp_path: Path) -> None:
    """A time-out is judged on a whole copy: until then it decides nothing of the scale."""
    readers = Readers(RasterRejected(Reason.READ_TIMEOUT, "…"))
    with pytest.raises(RasterRejected):
        await planner(tmp_path, readers)._read(task(), 1.0, last=False)
    assert len(readers.asked) == 2


async def test_a_full_disk_is_waited_out(tmp_path: Path) -> None:
    """As in inference: no image is given up because the model has no room just now."""
    models = Models(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(StoreUnavailable):
        await planner(tmp_path, Readers(), models)._read(task(), 1.0, last=True)


async def test_a_model_is_fetched_once_for_images_in_flight(tmp_path: Path) -> None:
    models = Models()
    plans = planner(tmp_path, Readers(), models)
    await asyncio.gather(*(plans._read(task(), 1.0, last=True) for _ in range(5)))
    assert models.most == 1
