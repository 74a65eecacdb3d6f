"""Frond's libraries in one process, as the inference service has them: plan, read one chunk ahead, run
as many chunks beside each other as fill the model's runs, decode, merge."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from contenders.chunks import Chunk, detected
from frond.contracts.ids import digest
from frond.contracts.jobs import ModelRef
from frond.contracts.plan import ImagePlan
from frond.inference.pipeline import Runner
from frond.inference.settings import InferenceSettings
from frond.merge import Detections, merge
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
    configure_formats(cache_mb=InferenceSettings.model_fields["gdal_cache_mb"].default)
    with tempfile.TemporaryDirectory() as cache:
        session = tuned(Path(model), cache_dir=Path(cache))
    manifest, runner = session.manifest, Runner()
    size = Path(path).stat().st_size
    request = PlanRequest(
        job_id="bench", image_id=digest("bench", path), image=path, name=Path(path).name, uri=path,
        etag="bench", size=size, model=ModelRef(name=manifest.name, digest="0" * 64),
        manifest=manifest,
    )  # fmt: skip

    def planned() -> ImagePlan:
        with open_dataset(path) as dataset:
            return plan_image(dataset, inspect(dataset, size), request)

    def work() -> dict[str, object]:
        began = time.perf_counter()
        parts, spent, windows = [], [0.0, 0.0, 0.0], 0
        waiting = 0.0

        def read(reader: RasterReader, ahead: ThreadPoolExecutor) -> Iterator[Chunk]:
            nonlocal waiting
            chunks = list(chunks_of(plan))
            reading = ahead.submit(reader.read_block, chunks[0].windows)
            for following in [*chunks[1:], None]:
                at = time.perf_counter()
                pixels = reading.result()
                waiting += time.perf_counter() - at
                if following is not None:
                    reading = ahead.submit(reader.read_block, following.windows)
                yield Chunk(plan, pixels, following is None)

        with ThreadPoolExecutor(1) as ahead, ExitStack() as stack:
            # in the thread that reads: memory that another one has let go would stay with that one
            plan = ahead.submit(planned).result()
            planning = time.perf_counter() - began
            reader = stack.enter_context(
                RasterReader(plan.source, plan.grid, path=path, layout=session.layout)
            )
            for found in detected(runner, session, read(reader, ahead)):
                parts.append(found.detections)
                windows += found.windows
                took = found.spent
                for n, s in enumerate((took.preprocess, took.run, took.decode)):
                    spent[n] += s
        at = time.perf_counter()
        kept = merge(Detections.concat(parts), plan.grid, manifest.thresholds.merge_iou)
        merging = time.perf_counter() - at
        return {
            "kept": len(kept), "windows": windows, "plan": planning, "read_wait": waiting,
            "preprocess": spent[0], "run": spent[1], "decode": spent[2], "merge": merging,
        }  # fmt: skip

    return work
