"""Frond's libraries in one process: plan, read one chunk ahead, run, decode, merge."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from frond.contracts.ids import digest
from frond.contracts.jobs import ModelRef
from frond.inference.pipeline import Runner
from frond.merge import Detections, assemble, merge
from frond.models.tuning import tuned
from frond.raster import (
    PlanRequest,
    RasterReader,
    chunks_of,
    configure_formats,
    inspect,
    open_dataset,
    plan_image,
)


def whole(path: str, model: str) -> Callable[[], dict]:
    configure_formats()
    with tempfile.TemporaryDirectory() as cache:
        session = tuned(Path(model), cache_dir=Path(cache))
    manifest, runner = session.manifest, Runner()
    size = Path(path).stat().st_size
    request = PlanRequest(
        job_id="bench", image_id=digest("bench", path), image=path, name=Path(path).name, uri=path,
        etag="bench", size=size, model=ModelRef(name=manifest.name, digest="0" * 64),
        manifest=manifest,
    )  # fmt: skip

    def work() -> dict[str, object]:
        began = time.perf_counter()
        with open_dataset(path) as dataset:
            plan = plan_image(dataset, inspect(dataset, size), request)
        planned = time.perf_counter() - began
        parts, spent, windows = [], [0.0, 0.0, 0.0], 0
        waiting = 0.0
        with (
            RasterReader(plan.source, plan.grid, path=path, layout=session.layout) as reader,
            ThreadPoolExecutor(1) as ahead,
        ):
            chunks = list(chunks_of(plan))
            reading = ahead.submit(reader.read_block, chunks[0].windows)
            for following in [*chunks[1:], None]:
                at = time.perf_counter()
                pixels = reading.result()
                waiting += time.perf_counter() - at
                if following is not None:
                    reading = ahead.submit(reader.read_block, following.windows)
                found, took = runner.detect(session, [p.data for p in pixels], manifest.thresholds)
                parts.append(assemble(found, pixels, plan.grid, plan.source))
                windows += len(pixels)
                spent = [
                    a + b
                    for a, b in zip(spent, (took.preprocess, took.run, took.decode), strict=True)
                ]
        at = time.perf_counter()
        kept = merge(Detections.concat(parts), plan.grid, manifest.thresholds.merge_iou)
        merging = time.perf_counter() - at
        return {
            "kept": len(kept), "windows": windows, "plan": planned, "read_wait": waiting,
            "preprocess": spent[0], "run": spent[1], "decode": spent[2], "merge": merging,
        }  # fmt: skip

    return work
