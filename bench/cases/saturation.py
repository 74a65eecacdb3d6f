"""One large raster through the whole system, against a process that does the work by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nano
import scale
import scene
from harness import WORK, Contender, entry, interleave
from system import OWN, System, Timed, contender, endpoints_json, stages, told

__all__ = ["ABOUT", "OWN", "run"]

_SIDE, _TARGET = 31_623, 0.90
_CAP_S = 1800.0

ABOUT = """\
One drawn RGB COG of a gigapixel (31,623², 8 bit, deflate, 512² blocks) in MinIO, and a model with
the layers and the arithmetic of a YOLOv8-nano and random weights (`bench/nano.py`): windows of 640²
with a margin of 64, one a run, as the inference service does on CPUs.

- **Frond**: `POST /start-job` with the object, until the completed event is seen on its topic. Kafka,
  MinIO and the five services as processes with their default settings, on the same cores; started
  for the round and warmed up with a small job, stopped after it.
- **a bare loop**: one process, warmed up with the same small raster: reads the same chunks from the
  same MinIO, one ahead, and has as many of them going as a service; the same model, threads, runs at
  once and batch; prepares, decodes, merges and writes the same artifacts of the image and the job to
  MinIO, beside the runs of what follows. No events, no ledger, no chunk results. The services are
  stopped meanwhile; Kafka stands idle.

*CPU s* of Frond is that of the five services, of the loop its own; MinIO's and Kafka's is in the
line below the table. *boxes* must be the same in both.
"""


def run() -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """results.json's lines and a table of the document."""
    side = scale.side(_SIDE)
    print(f"  drawing {side}²", flush=True)
    raster, warm = scene.stored(side, False, WORK), scene.stored(1280, False, WORK)
    model = nano.stored(WORK)
    with System("saturation", nano.NAME) as system:
        system.push(model)
        large = system.put("rasters/large/scene.tif", raster)
        small = system.put("rasters/warm/scene.tif", warm)

        async def ours() -> dict[str, Any]:
            async with system.running() as running:
                await running.run_job(small, 300)
                timed = Timed(running)
                ended = await running.run_job(large, _CAP_S)
                event = ended.event
                return {
                    **timed.figures(ended.at), **stages(event),
                    "windows": event.windows.done, "kept": sum(event.detections.values()),
                }  # fmt: skip

        args = {
            "endpoints": endpoints_json(system), "model": str(model),
            "prefix": "rasters/large/", "warm": "rasters/warm/",
        }  # fmt: skip
        every = [
            contender("Frond", ours),
            Contender("a bare loop", "bare_loop:rasters", args, frond=True),
        ]
        interleave(every, _CAP_S, long_s=float("inf"))
    frond, loop = every
    what = f"{side}², {nano.SIZE}² windows"
    lines = [entry("saturation", f"{what}, throughput, vs a bare loop", frond, loop, "seconds", "s", _TARGET)]  # fmt: skip
    yield scale.marked(lines, table(f"Saturation: {what}", every))


def table(title: str, every: list[Contender]) -> dict[str, Any]:
    rows = []
    for c in every:
        seconds, windows = c.median("seconds"), c.median("windows")
        rows.append({
            "contender": c.name, "over": c.over, "seconds": seconds,
            "spread": c.spread("seconds"), "CPU s": c.median("cpu"),
            "windows": windows,
            "windows/s": windows / seconds if seconds and windows else None,
            "boxes": c.median("kept"), "rounds": len(c.rounds),
        })  # fmt: skip
    note = "\n\n".join(f"{c.name}: {said}" for c in every if (said := told(c)))
    return {"title": title, "rows": rows, "plot": "seconds", "note": note}
