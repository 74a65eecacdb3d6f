"""Frond's libraries: plan, read one chunk ahead, run, decode, store chunks; then blend in a child."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from frond.contracts.ids import digest
from frond.contracts.jobs import ModelRef
from frond.inference.pipeline import Runner, Spent
from frond.masks import masks, to_ipc
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

# python -m frond.masks, which then tells its peak in MB and what it took for polygons; without
# arguments only that
_PROGRAM = """
import importlib
import sys
import time
from pathlib import Path
from frond.masks.__main__ import main
# the package's attribute of that name is the function
build = importlib.import_module("frond.masks.build")
spent = 0.0
def timed(call):
    def measured(*args):
        global spent
        began = time.perf_counter()
        try:
            return call(*args)
        finally:
            spent += time.perf_counter() - began
    return measured
build.Tracer.add = timed(build.Tracer.add)
build.Tracer.finish = timed(build.Tracer.finish)
build._write = timed(build._write)
if sys.argv[1:]:
    main(sys.argv[1:])
status = Path("/proc/self/status").read_text()
print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)
print(spent)
"""


def whole(path: str, model: str, folder: str) -> Callable[[], dict]:
    """``folder`` is emptied before; the class raster is left there."""
    configure_formats()
    with tempfile.TemporaryDirectory() as cache:
        session = tuned(Path(model), cache_dir=Path(cache))
    manifest, runner = session.manifest, Runner()
    size, home = Path(path).stat().st_size, Path(folder)
    request = PlanRequest(
        job_id="bench", image_id=digest("bench", path), image=path, name=Path(path).name, uri=path,
        etag="bench", size=size, model=ModelRef(name=manifest.name, digest="0" * 64),
        manifest=manifest,
    )  # fmt: skip
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / "model.json").write_text(manifest.model_dump_json())

    def work() -> dict[str, object]:
        began = time.perf_counter()
        with open_dataset(path) as dataset:
            plan = plan_image(dataset, inspect(dataset, size), request)
        (home / "plan.json").write_text(plan.model_dump_json())
        stored = 0
        with (
            RasterReader(plan.source, plan.grid, path=path, layout=session.layout) as reader,
            ThreadPoolExecutor(1) as ahead,
        ):
            chunks = list(chunks_of(plan))
            reading = ahead.submit(reader.read_block, chunks[0].windows)
            for n, following in enumerate([*chunks[1:], None]):
                pixels = reading.result()
                if following is not None:
                    reading = ahead.submit(reader.read_block, following.windows)
                arrays = [p.data for p in pixels]
                found = runner.results(session, arrays, manifest.thresholds, Spent())
                data = to_ipc(masks(found, pixels, plan.grid), {"ordinal": str(n)})
                (home / f"{chunks[n].chunk_id}.arrow").write_bytes(data)
                stored += len(data)
        ran = time.perf_counter() - began
        began = time.perf_counter()
        files = [str(home), str(home / "plan.json"), str(home / "model.json")]
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *files], check=True, capture_output=True
        )
        said, peak, polygons = map(json.loads, done.stdout.splitlines())
        return {
            "kept": said["regions"], "pixels": sum(said["pixels"]), "run": ran,
            "build": time.perf_counter() - began, "stored": stored / 2**20,
            "build peak": peak, "polygons": polygons,
        }  # fmt: skip

    return work


def idle() -> Callable[[], dict]:
    """What the program that blends holds before it has begun."""

    def work() -> dict[str, object]:
        done = subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True)
        return {"build idle": json.loads(done.stdout.splitlines()[0])}

    return work
