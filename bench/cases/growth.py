"""Jobs of ten to ten thousand images: does the time grow as they do, and do the pages stay quick."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

import scale
import scene
from frond.models.testing import blob_model
from harness import ROUNDS, WORK, limit
from system import OWN, Running, System, Timed

__all__ = ["ABOUT", "OWN", "run"]

_SIZES, _WARM = (10, 100, 1000, 10_000), 50
_LINEAR, _PAGE_MS = 1.15, 20.0
_EVERY_S = 0.25
_CAP_S = 3600.0
_PAGES = {
    "status": "/status/{job}", "job list": "/jobs?limit=100",
    "images of the job": "/jobs/{job}/images?limit=100",
}  # fmt: skip

ABOUT = f"""\
Frond alone: jobs of 10 to 10,000 GeoTIFFs of 256² with planted squares, which lie in MinIO, begun by
`POST /start-job` with their prefix, until the completed event is seen. The model (the tests' blob
finder) costs little, so that what is measured is the system and not ONNX Runtime. One installation
runs through all of it and grows fuller; the sizes take turns to be first, smallest last in every
second round.

*× linear* is the time an image, against that of the next smaller job. A job's beginning and end cost
the same at any size, so the small ones look dear an image: growth is what exceeds 1.

*Pages*: while a job runs, three requests each {_EVERY_S:g} s, one after the other, by one client on
this machine: `GET /status/JOB`, `GET /jobs` and `GET /jobs/JOB/images` (a hundred rows each). The
target holds for every answer; p99 is judged beside it, for on two cores that run all else too the
slowest of thousands tells of the scheduler.
"""


def run() -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """results.json's lines and two tables of the document."""
    sizes = sorted({scale.count(n, 4) for n in _SIZES})
    with System("growth", "blob") as system:
        system.push(blob_model(WORK / "model-blob"))
        for n in [*sizes, _WARM]:
            system.put_all({f"rasters/{n}/{k:05d}.tif": scene.blob_file(k) for k in range(n)})
        took: dict[int, list[dict[str, Any]]] = {n: [] for n in sizes}
        pages: dict[str, list[float]] = {name: [] for name in _PAGES}
        asyncio.run(_rounds(system, sizes, took, pages))
    yield scale.marked(*_growth(took))
    yield scale.marked(*_quick(pages))


async def _rounds(
    system: System,
    sizes: list[int],
    took: dict[int, list[dict[str, Any]]],
    pages: dict[str, list[float]],
) -> None:
    async with system.running() as running:
        await running.run_job(f"s3://frond/rasters/{_WARM}/", _CAP_S)
        for number in range(ROUNDS):
            for n in sizes if number % 2 == 0 else reversed(sizes):
                figures = await _one(running, n, pages)
                took[n].append(figures)
                print(f"    round {number + 1}: {n} images: {figures['seconds']:.2f} s", flush=True)


async def _one(running: Running, n: int, pages: dict[str, list[float]]) -> dict[str, Any]:
    timed = Timed(running)
    job_id = await running.start_job(f"s3://frond/rasters/{n}/")
    looking = asyncio.create_task(_look(running, job_id, pages))
    try:
        ended = await running.completed(job_id, _CAP_S)
        figures = timed.figures(ended.at)
    finally:
        looking.cancel()
        gone = await asyncio.gather(looking, return_exceptions=True)
    if isinstance(gone[0], Exception):
        raise gone[0]
    if ended.event.images.completed != n:
        raise RuntimeError(f"{ended.event.images} of {n}")
    return figures


async def _look(running: Running, job_id: str, pages: dict[str, list[float]]) -> None:
    while True:
        for name, path in _PAGES.items():
            began = time.perf_counter()
            await running.ask("GET", path.format(job=job_id))
            pages[name].append((time.perf_counter() - began) * 1e3)
        await asyncio.sleep(_EVERY_S)


def _growth(
    took: dict[int, list[dict[str, Any]]],
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    seconds = {n: statistics.median(f["seconds"] for f in rounds) for n, rounds in took.items()}
    steps = {b: seconds[b] / b / (seconds[a] / a) for a, b in pairwise(seconds)}
    lines = [
        limit("growth", f"from {a:,} to {b:,} images, time an image", steps[b], _LINEAR, "×")
        for a, b in pairwise(seconds)
    ]
    rows = []
    for n, rounds in took.items():
        row: dict[str, Any] = {
            "contender": f"Frond, {n:,} images", "seconds": seconds[n],
            "spread": [min(f["seconds"] for f in rounds), max(f["seconds"] for f in rounds)],
            "images/s": n / seconds[n], "× linear": steps.get(n),
            "CPU ms an image": statistics.median(f["cpu"] for f in rounds) / n * 1e3,
        }  # fmt: skip
        rows.append({**row, "rounds": len(rounds)})
    most = took[max(took)]
    cpu = {k: statistics.median(f[k] for f in most) for k in most[0] if k.startswith("cpu ")}
    note = f"CPU seconds by process at {max(took):,} images: "
    note += ", ".join(f"{k[4:]} {v:.3g}" for k, v in cpu.items()) + "."
    return lines, {
        "title": "Growth: images a job", "rows": rows, "plot": "seconds", "note": note,
    }  # fmt: skip


def _quick(pages: dict[str, list[float]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    lines, rows = [], []
    for name, took in pages.items():
        if not took:
            continue
        p50, p99 = (float(np.percentile(took, k)) for k in (50, 99))
        spread = [min(took), max(took)]
        lines += [
            limit("growth", f"{name} while a job runs, p99", p99, _PAGE_MS, "ms", spread),
            limit("growth", f"{name} while a job runs, slowest", max(took), _PAGE_MS, "ms", spread),
        ]
        rows.append({
            "contender": f"Frond, {name}", "ms": p50, "spread": [min(took), p99],
            "p99 ms": p99, "slowest ms": max(took),
            "above 20 ms, %": 100 * sum(t > _PAGE_MS for t in took) / len(took),
            "answers": len(took),
        })  # fmt: skip
    return lines, {"title": "Growth: pages while a job runs", "rows": rows, "plot": "ms"}
