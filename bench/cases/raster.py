"""A whole raster on one machine: Frond's libraries against SAHI and supervision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from harness import ROOT, WORK, Contender, entry, interleave, limit
from scene import stored

SIDES = tuple(int(x) for x in os.environ.get("BENCH_RASTER_SIDES", "8192,20000").split(","))
_CAP_S = 600.0
_STAGES = ("plan", "read_wait", "preprocess", "run", "decode", "merge")

ABOUT = """\
One drawn RGB COG (deflate, 512² blocks, 0.14 m) on local disk, `models/palm-detector`, windows of
512² with a margin of 64 (an overlap of 128): the same windows for all. Timed: from the closed file
to the final list of boxes; the model is loaded and warmed up before. All use Frond's decoder.

- **Frond**: its libraries in one process, the same code that the services run: plan (which checks
  the raster and finds windows of nothing but nodata), chunks read one ahead, threads, runs at
  once and batch as found for the model when it was loaded, merge. No broker, no object store.
- **SAHI**: `get_sliced_prediction` with a `DetectionModel` around one `InferenceSession` (default
  options), no extra pass over the whole image, NMS; the raster read by rasterio in one go.
- **supervision**: `InferenceSlicer` on the open dataset, NMS.

geodeep takes only models with YOLO or RetinaNet outputs, so it is not in these tables.

*Peak MB* is the process's peak of resident memory, libraries included; *added MB* is what the run
added to the loaded process. With a model, every contender spends nearly all of its time in ONNX
Runtime: what can differ is the rest, the windows that need not be run, and memory.
"""


def run() -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """results.json's lines and a table of the document, case by case."""
    for side in SIDES:
        fastest: dict[bool, float] = {}
        for nodata in (False, True):
            what = f"{side}²{', 40 % nodata' if nodata else ''}"
            print(f"  raster {what}", flush=True)
            common = {
                "path": str(stored(side, nodata, WORK)),
                "model": str(ROOT / "models" / "palm-detector"),
            }
            every = [Contender("Frond", "frond_raster:whole", common, frond=True)]
            for name, module in (("SAHI", "sahi_raster"), ("supervision", "supervision_raster")):
                for batch in (1, 8):
                    args = {**common, "batch": batch}
                    every.append(Contender(f"{name}, batch {batch}", f"{module}:whole", args))
            interleave(every, _CAP_S, long_s=60)
            lines: list[dict[str, Any]] = []
            for other in every[1:]:
                lines += [
                    entry("raster", f"{what}, time, vs {other.name}", every[0], other, "seconds", "s", 1),
                    entry("raster", f"{what}, added memory, vs {other.name}", every[0], other, "added", "MB", 2),
                ]  # fmt: skip
            if every[0].over is None:
                fastest[nodata] = every[0].median("seconds") or 0.0
            if len(fastest) == 2:
                share = fastest[True] / fastest[False]
                case = f"{side}², time with 40 % nodata ÷ without, Frond"
                lines.append(limit("raster", case, share, 0.7, "×"))
            yield lines, _table(f"Raster: {what}", every)


def _table(title: str, every: list[Contender]) -> dict[str, Any]:
    rows = [
        {
            "contender": c.name,
            "over": c.over,
            "seconds": c.median("seconds"),
            "spread": c.spread("seconds"),
            "CPU s": c.median("cpu"),
            "peak MB": c.median("peak"),
            "added MB": c.median("added"),
            "boxes": c.median("kept"),
            "rounds": len(c.rounds),
        }
        for c in every
    ]
    ours = every[0]
    note = None
    if ours.over is None:
        parts = ", ".join(f"{s.replace('_', ' ')} {ours.median(s):.3g} s" for s in _STAGES)
        note = (
            f"Frond ran {ours.median('windows'):.0f} windows. Where its time went (medians; "
            "preprocess and decode of one batch overlap with the run of another, "
            f"and reading with everything but its wait): {parts}."
        )
    return {"title": title, "rows": rows, "plot": "seconds", "note": note}
