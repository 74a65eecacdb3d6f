"""Inference workers that sleep instead of computing: does the rest keep up with 1, 2, 4, 8 of them?"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import scale
import scene
from frond.models.testing import blob_model
from harness import ROOT, WORK, Contender, interleave
from support.services import free_port
from system import OWN, Running, System, Timed, contender, stages, told

__all__ = ["ABOUT", "OWN", "run"]

_WORKERS = (1, 2, 4, 8)
_SLEEP_S, _LINEAR, _FULL = 0.004, 0.9, 2000
_SIZE, _MARGIN = 64, 4
_STRIDE = _SIZE - 2 * _MARGIN
_SIDE, _WARM_SIDE = 200 * _STRIDE, 40 * _STRIDE
_CAP_S = 900.0
_OTHERS = ("ingest", "tiler", "aggregator", "notifier")

ABOUT = f"""\
One job of an RGB COG of {_SIDE:,}² that compresses to next to nothing, in MinIO: windows of {_SIZE}²
with a margin of {_MARGIN}, in chunks of 11 × 11. The inference workers are the service itself, but for its
model (`bench/contenders/sleeping_inference.py`): each run sleeps {_SLEEP_S * 1000:g} ms and finds
nothing, so that eight workers want {_FULL:,} windows a second from two cores that also hold Kafka,
MinIO and the other services. Windows are small, for their pixels have to be read all the same.

Timed: `POST /start-job` until the completed event, planning and the job's artifacts included; what
cannot be spread over workers shows at eight of them. *of ideal* is against 1 ÷ {_SLEEP_S * 1000:g} ms
a worker, *of linear* against what one worker did.
"""


def run() -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """results.json's lines and a table of the document."""
    side = scale.side(_SIDE, _WARM_SIDE)
    raster, warm = (scene.planted(s, s, 16, WORK) for s in (side, _WARM_SIDE))
    model = blob_model(WORK / "model-sleeping", _SIZE, name="sleeping", margin=_MARGIN)
    with System("scale", "sleeping") as system:
        system.push(model)
        large = system.put("rasters/large/scene.tif", raster)
        small = system.put("rasters/warm/scene.tif", warm)

        async def ours(workers: int) -> dict[str, Any]:
            async with system.running(*_OTHERS) as running:
                await _join(running, workers)
                await running.run_job(small, 300)
                timed = Timed(running)
                ended = await running.run_job(large, _CAP_S)
                return {
                    **_together(timed.figures(ended.at)), **stages(ended.event),
                    "windows": ended.event.windows.done,
                }  # fmt: skip

        every = [
            contender(f"Frond, {n} worker{'s' * (n > 1)}", lambda n=n: ours(n)) for n in _WORKERS
        ]
        interleave(every, long_s=float("inf"))
    yield scale.marked(_lines(every), _table(f"Scale: {side:,}², {_SIZE}² windows", every))


async def _join(running: Running, workers: int) -> None:
    """Start the workers as processes of the installation, and wait until they have their share."""
    services = running.services
    names = [f"inference-{n + 1}" for n in range(workers)]
    for name in names:
        services.ports[name] = free_port()
        out = (services.logs / f"{name}.log").open("ab")
        services.files.append(out)
        env = {
            **os.environ, **services.env, "FROND_HTTP_PORT": str(services.ports[name]),
            "FROND_CACHE_DIR": services.env["FROND_CACHE_DIR"] + f"-{name}",
            "BENCH_SLEEP_S": str(_SLEEP_S), "PYTHONPATH": str(ROOT / "bench"),
        }  # fmt: skip
        services.processes[name] = await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-m", "contenders.sleeping_inference"],
            env=env, stdout=out, stderr=out,
        )  # fmt: skip
    await services.ready(*names)


def _together(figures: dict[str, Any]) -> dict[str, Any]:
    """All workers' CPU seconds as those of one service."""
    workers = [figures.pop(k) for k in list(figures) if k.startswith("cpu inference-")]
    return {**figures, "cpu": figures["cpu"] + sum(workers), "cpu inference": sum(workers)}


def _rate(one: Contender) -> float | None:
    seconds, windows = one.median("seconds"), one.median("windows")
    return windows / seconds if seconds and windows else None


def _lines(every: list[Contender]) -> list[dict[str, Any]]:
    most, rate = _WORKERS[-1], _rate(every[-1])
    alone = _rate(every[0])
    linear = most * alone if alone else None
    return [
        _line(f"{most} workers, windows/s, vs {most} times one worker", rate, linear),
        _line(f"{most} workers, windows/s, vs {_FULL:,} windows/s", rate, float(_FULL)),
    ]


def _line(case: str, ours: float | None, ideal: float | None) -> dict[str, Any]:
    ratio = ours / ideal if ours and ideal else None
    return {
        "name": "scale", "case": case, "ours": ours, "theirs": ideal, "unit": "windows/s",
        "ratio": ratio, "target": f"> {_LINEAR:g}",
        "met": None if ratio is None else ratio > _LINEAR,
    }  # fmt: skip


def _table(title: str, every: list[Contender]) -> dict[str, Any]:
    rows = []
    alone = _rate(every[0])
    for n, c in zip(_WORKERS, every, strict=True):
        rate = _rate(c)
        rows.append({
            "contender": c.name, "over": c.over, "seconds": c.median("seconds"),
            "spread": c.spread("seconds"), "CPU s": c.median("cpu"),
            "windows": c.median("windows"), "windows/s": rate,
            "of ideal": rate * _SLEEP_S / n if rate else None,
            "of linear": rate / (n * alone) if rate and alone else None,
            "rounds": len(c.rounds),
        })  # fmt: skip
    return {"title": title, "rows": rows, "plot": "seconds", "note": told(every[-1])}
