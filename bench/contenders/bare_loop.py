"""One process that does a job's work by itself: reads from MinIO, runs, merges, writes the artifacts.

Frond's own libraries do each step, so that what differs from the system is the system: no events,
no ledger, no chunk results, nothing that survives a crash. The next chunk is read while others are
run, as many as fill the model's runs; batches are prepared and decoded and an image is finished
meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from contenders.chunks import Chunk, detected
from frond.aggregator.images import completed_outcome
from frond.artifacts import ImageResult, JobInfo, write_image_artifacts, write_job
from frond.contracts import keys
from frond.contracts.ids import image_id
from frond.contracts.jobs import ModelRef
from frond.contracts.plan import ImagePlan
from frond.inference.pipeline import Runner
from frond.merge import Detections, merge, to_ipc
from frond.models.folder import folder_digest
from frond.models.session import ModelSession
from frond.models.tuning import tuned
from frond.raster import (
    Limits,
    PlanRequest,
    RasterReader,
    chunks_of,
    configure_gdal,
    inspect,
    open_dataset,
    plan_image,
)
from frond.store import Listed, ObjectStore, StoreSettings

T = TypeVar("T")
_JOB = "bare"
_TUNED = Path(__file__).resolve().parents[2] / ".frond" / "bench" / "tuned"
_ARROW = "application/vnd.apache.arrow.file"
# the system reads small images whole before it plans them, so that damage shows early; not the loop
_LIMITS = Limits(verify_pixels=0)


def store_of(env: dict[str, str]) -> ObjectStore:
    return ObjectStore(
        StoreSettings(
            env["FROND_S3_ENDPOINT"], env["FROND_S3_ACCESS_KEY"], env["FROND_S3_SECRET_KEY"],
            env["FROND_S3_BUCKET"],
        )
    )  # fmt: skip


def rasters(endpoints: str, model: str, prefix: str, warm: str) -> Callable[[], dict[str, Any]]:
    """Everything under a prefix; warmed up with what is under another."""
    env = json.loads(endpoints)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    bare = _Bare(env, Path(model), loop)
    bare.work(warm)
    return lambda: bare.work(prefix)


def _session(folder: Path) -> ModelSession:
    # threads and batch as the inference service finds them on this machine
    return tuned(folder, cache_dir=_TUNED)


class _Bare:
    def __init__(self, env: dict[str, str], folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._store = store_of(env)
        configure_gdal(
            env["FROND_S3_ENDPOINT"], env["FROND_S3_ACCESS_KEY"], env["FROND_S3_SECRET_KEY"]
        )
        self._session = _session(folder)
        self._manifest = self._session.manifest
        self._model = ModelRef(
            name=self._manifest.name, digest=folder_digest(folder), version=self._manifest.version
        )
        self._runner = Runner()

    def work(self, prefix: str) -> dict[str, Any]:
        spent = dict.fromkeys(("read wait", "preprocess", "run", "decode", "finish"), 0.0)
        parts: list[Detections] = []
        results: list[ImageResult] = []
        windows = 0
        objects = self._loop.run_until_complete(self._listed(prefix))
        for found in detected(self._runner, self._session, _ahead(self._read(objects), spent)):
            parts.append(found.detections)
            windows += found.windows
            for stage in ("preprocess", "run", "decode"):
                spent[stage] += getattr(found.spent, stage)
            if found.last:
                began = time.perf_counter()
                results.append(self._loop.run_until_complete(self._finish(found.plan, parts)))
                spent["finish"] += time.perf_counter() - began
                parts = []
        began = time.perf_counter()
        self._close(results)
        spent["finish"] += time.perf_counter() - began
        kept = sum(len(r.detections) for r in results)
        return {"kept": kept, "windows": windows, **{f"stage {k}": v for k, v in spent.items()}}

    async def _listed(self, prefix: str) -> list[Listed]:
        return [item async for item in self._store.list(prefix)]

    def _read(self, objects: list[Listed]) -> Iterator[Chunk]:
        for item in objects:
            uri = self._store.uri(item.key)
            request = PlanRequest(
                job_id=_JOB, image_id=image_id(_JOB, uri), image=uri,
                name=item.key.rsplit("/", 1)[-1], uri=uri, etag=item.etag, size=item.size,
                model=self._model, manifest=self._manifest, limits=_LIMITS,
            )  # fmt: skip
            with closing(open_dataset(uri, size=item.size)) as dataset:
                plan = plan_image(dataset, inspect(dataset, item.size), request)
                reader = RasterReader(
                    plan.source, plan.grid, dataset=dataset, layout=self._session.layout
                )
                for chunk in chunks_of(plan):
                    pixels = reader.read_block(chunk.windows)
                    yield Chunk(plan, pixels, chunk.ordinal + 1 == chunk.chunks)

    async def _finish(self, plan: ImagePlan, parts: list[Detections]) -> ImageResult:
        """Merge an image, write its artifacts."""
        iou = self._manifest.thresholds.merge_iou
        merged = merge(Detections.concat(parts), plan.grid, iou)
        classes, counts = np.unique(merged.classes, return_counts=True)
        by_class = {self._manifest.classes[c]: int(n) for c, n in zip(classes, counts, strict=True)}
        outcome = completed_outcome(plan, by_class)
        key = keys.image_detections(_JOB, plan.image_id)
        await asyncio.gather(
            self._store.put(key, to_ipc(merged), _ARROW),
            write_image_artifacts(self._store, plan, outcome, merged, self._manifest),
        )
        return ImageResult(outcome, plan, merged)

    def _close(self, results: list[ImageResult]) -> None:
        """Write the job's artifacts, from memory."""
        results.sort(key=lambda r: (r.outcome.name, r.outcome.image_id))
        write_job(
            results,
            [r.outcome for r in results],
            JobInfo(_JOB, self._model, self._manifest),
            lambda name, kind: self._store.writer(keys.result(_JOB, name), kind),
            lambda name: self._store.uri(keys.result(_JOB, name)),
        )


def _ahead(items: Iterator[T], spent: dict[str, float]) -> Iterator[T]:
    """The items, each made in a thread while the one before is in use; the wait for them is told."""
    with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
        coming = pool.submit(next, items, None)
        while True:
            began = time.perf_counter()
            item = coming.result()
            spent["read wait"] += time.perf_counter() - began
            if item is None:
                return
            coming = pool.submit(next, items, None)
            yield item


def runs(path: str, model: str, times: int) -> Callable[[], dict[str, Any]]:
    """session.run of a local image's windows, and nothing else, several times."""
    session = _session(Path(model))
    size = Path(path).stat().st_size
    with closing(open_dataset(path)) as dataset:
        request = PlanRequest(
            job_id=_JOB, image_id=image_id(_JOB, path), image=path, name="image", uri=path,
            etag="-", size=size, manifest=session.manifest, limits=_LIMITS,
            model=ModelRef(name=session.manifest.name, digest="0" * 64),
        )  # fmt: skip
        plan = plan_image(dataset, inspect(dataset, size), request)
        reader = RasterReader(plan.source, plan.grid, dataset=dataset, layout=session.layout)
        windows = reader.read_block(range(plan.grid.count))
    inputs = [session.prepare([w.data]) for w in windows]
    for prepared in inputs:
        session.infer(prepared, 1)

    def work() -> dict[str, Any]:
        took = []
        for _ in range(times):
            began = time.perf_counter()
            for prepared in inputs:
                session.infer(prepared, 1)
            took.append(time.perf_counter() - began)
        return {"kept": 0, "windows": len(inputs), "one": float(np.median(took))}

    return work
