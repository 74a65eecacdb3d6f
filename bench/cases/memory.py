"""How much memory the services take for a huge raster and for a job of millions of detections."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import scale
import scene
from frond.models.testing import blob_model
from harness import ROUNDS, WORK, limit
from peaks import idle_mib, watched
from system import OWN, System

__all__ = ["ABOUT", "OWN", "run"]

_LARGE, _IMAGE, _IMAGES = 60_000, 6_720, 64
_PITCH, _SQUARE, _SPARSE = 24, 12, 1_200
_ADDED_MIB, _APART_MIB = 500.0, 64.0
_WITHIN_S = 7200.0

ABOUT = f"""\
Frond alone. Two jobs: one COG of {_LARGE:,}² (8-bit RGB, 10.8 GB of pixels, plain ground with a few
planted squares: some 20 MB as deflate), in windows of 1024²; and {_IMAGES} images of {_IMAGE:,}² that
are full of squares, {(_IMAGE // _PITCH) ** 2:,} each, 5 million in all, in windows of 640². Both again
at a quarter: a COG of {_LARGE // 2:,}², and {_IMAGES // 4} of the images. The model is the tests' blob
finder. The services run with their default settings and are started anew for each measurement and
warmed up with a job of 16 small images.

*Idle* is the resident memory (`VmRSS`) after that; *peak* is the sum of the high-water marks (`VmHWM`,
set back when idle was read) of a service's process and all its descendants that lived at the same
time, looked at five times a second: at least what was held, for not all peak at once, and pages that
they share count in each. *Added* is judged, of each service: at most {_ADDED_MIB:g} MiB; and constant,
that is at most {_APART_MIB:g} MiB more than at a quarter of the size.
"""


def run() -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """results.json's lines and a table of the document, for each of the two jobs."""
    wide = blob_model(WORK / "model-wide", 1024, name="wide")
    dense = blob_model(WORK / "model-dense", 640, name="dense", score=0.3)

    def large(system: System, quarter: bool) -> None:
        side = scale.side(_LARGE // 2 if quarter else _LARGE)
        system.put("rasters/job/large.tif", scene.planted(side, _SPARSE, 16, WORK))

    def many(system: System, quarter: bool) -> None:
        images = scale.count(_IMAGES // 4 if quarter else _IMAGES)
        path = scene.planted(_IMAGE, _PITCH, _SQUARE, WORK)
        system.put_all({f"rasters/job/{n:03d}.tif": path for n in range(images)})

    yield scale.marked(*_judged(f"a COG of {scale.side(_LARGE):,}²", wide, large))
    number = scale.count(_IMAGES) * (_IMAGE // _PITCH) ** 2
    yield scale.marked(*_judged(f"a job of {number / 1e6:.1f} M detections", dense, many))


def _judged(
    what: str, model: Path, fill: Callable[[System, bool], None]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rounds: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for number in range(ROUNDS):
        for quarter in (False, True) if number % 2 == 0 else (True, False):
            figures = _measured(model, fill, quarter)
            rounds[quarter].append(figures)
            size = "a quarter" if quarter else "whole"
            most = max(figures["added"].values())
            print(f"    round {number + 1}: {what}, {size}: {figures['seconds']:.0f} s, "
                  f"{figures['kept']:,} detections, at most {most:.0f} MiB added", flush=True)  # fmt: skip
    lines, rows = [], []
    for name in rounds[False][0]["added"]:
        added, spreads = {}, {}
        for quarter, figures in rounds.items():
            values = [f["added"][name] for f in figures]
            added[quarter], spreads[quarter] = statistics.median(values), [min(values), max(values)]
        lines += [
            limit("memory", f"{what}, {name}, added", added[False], _ADDED_MIB, "MiB", spreads[False]),
            limit(
                "memory", f"{what}, {name}, added more than at a quarter",
                added[False] - added[True], _APART_MIB, "MiB",
            ),
        ]  # fmt: skip
        rows.append({
            "contender": f"Frond, {name}",
            "idle MiB": statistics.median(f["idle"][name] for f in rounds[False]),
            "peak MiB": statistics.median(f["peak"][name] for f in rounds[False]),
            "added MiB": added[False], "spread": spreads[False],
            "added at a quarter, MiB": added[True],
        })  # fmt: skip
    whole, part = (statistics.median(f["seconds"] for f in rounds[q]) for q in (False, True))
    note = (
        f"{rounds[False][0]['kept']:,} detections in {whole:.0f} s; at a quarter of the size "
        f"{rounds[True][0]['kept']:,} in {part:.0f} s. Rounds: {ROUNDS}."
    )
    return lines, {"title": f"Memory: {what}", "rows": rows, "plot": "added MiB", "note": note}


def _measured(model: Path, fill: Callable[[System, bool], None], quarter: bool) -> dict[str, Any]:
    with System("memory", model.name.removeprefix("model-")) as system:
        system.push(model)
        warm = {f"rasters/warm/{n}.tif": scene.blob_file(n, 1024) for n in range(16)}
        system.put_all(warm)
        fill(system, quarter)
        return asyncio.run(_watched(system))


async def _watched(system: System) -> dict[str, Any]:
    async with system.running() as running:
        await running.run_job("s3://frond/rasters/warm/", 300)
        roots = {name: p.pid for name, p in running.services.processes.items()}
        idle = idle_mib(roots)
        async with watched(roots) as peak:
            job_id = await running.start_job("s3://frond/rasters/job/")
            ended = await running.completed(job_id, _WITHIN_S)
        began, finished = ended.event.started, ended.event.finished
        return {
            "idle": idle, "peak": peak, "added": {n: peak[n] - idle[n] for n in roots},
            "kept": sum(ended.event.detections.values()),
            "seconds": (finished - began).total_seconds() if began and finished else 0.0,
        }  # fmt: skip
