"""A whole raster's masks on one machine: blended over overlaps into a COG, against numpy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import masks_model
import scale
from harness import WORK, Contender, entry, interleave, limit, spared
from scene import stored

OWN = ("onnxruntime", "numpy", "rasterio", "pyarrow")

_SIDE, _SMALL_SIDE = 20_000, 6_000
_SPEED, _ROWS, _GROWTH_MB = 0.8, 8.0, 192.0
_CAP_S = 900.0
_CAP_MB = spared(16 * 1024)
"""The other holds some 11 GB of the larger image: with less it has no figure."""

ABOUT = f"""\
Drawn RGB COGs (deflate, 512² blocks) on local disk and a small segmentation network made from a seed
(`bench/masks_model.py`: {masks_model.CLASSES} classes and a background), windows of
{masks_model.SIZE}² with a margin of {masks_model.MARGIN}. Timed: from the closed file to a COG of classes;
the model is loaded before.

- **Frond**: the code that the services run, without broker and object store: plan, chunks read one
  ahead, run as found for the model when it was loaded (threads, runs at once, batch), each chunk's masks as a file (*stored MB*); then `python -m frond.masks` in a
  process of its own, as the aggregator starts it, which blends the windows into the COG and traces
  its regions into polygons (*regions*). What those take (*polygons s*) is not in *seconds*, for
  the other makes none.
- **numpy**: the loop that everybody writes. The image, float32 sums of weighted probabilities and
  the weights' sum are held whole; argmax by 1,024 rows, then the same COG. No polygons. It may hold
  {_CAP_MB / 1024:.0f} GB.

The memory that counts is that of blending (*blend MB*): what a window costs while the model runs
does not depend on the image. *in rows* is what blending added to the loaded process, in rows of
windows: what the planes of one row across the image take as bytes.
"""


def run() -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """results.json's lines and a table of the document, by size."""
    model = masks_model.stored(WORK)
    idle = Contender("idle", "frond_masks:idle", {}, frond=True)
    interleave([idle], rounds=1)
    empty = idle.median("build idle") or 0.0
    held: dict[int, float] = {}
    for side in (scale.side(_SMALL_SIDE), scale.side(_SIDE)):
        what = f"{side}²"
        print(f"  segmentation {what}", flush=True)
        path, home = str(stored(side, False, WORK)), WORK / "segmentation"
        ours = Contender(
            "Frond", "frond_masks:whole",
            {"path": path, "model": str(model), "folder": str(home / "frond")}, frond=True,
        )  # fmt: skip
        theirs = Contender(
            "numpy", "numpy_masks:whole",
            {"path": path, "model": str(model), "out": str(home / "numpy.tif")}, frond=True,
            cap_mb=_CAP_MB,
        )  # fmt: skip
        Path(home).mkdir(parents=True, exist_ok=True)
        interleave([ours, theirs], _CAP_S, long_s=60)
        for one in (ours, theirs):
            for figures in one.rounds:
                # both processes, as if each were at its peak at once
                figures["held"] = figures["peak"] + figures.get("build peak", 0.0)
                figures["seconds"] -= figures.get("polygons", 0.0)
        added = max((ours.median("build peak") or 0.0) - empty, 0.1)
        row = (masks_model.CLASSES + 1) * masks_model.SIZE * side / 2**20
        held[side] = added
        lines = [
            entry("segmentation", f"{what}, time, vs numpy", ours, theirs, "seconds", "s", _SPEED),
            entry("segmentation", f"{what}, peak memory, vs numpy", ours, theirs, "held", "MB", 1),
        ]
        if ours.over is None and side == max(held) and len(held) == 2:
            least = min(held.values())
            lines += [
                limit("segmentation", f"{what}, blending, in rows of windows", added / row, _ROWS, "rows"),
                limit(
                    "segmentation", f"{what}, blending, added more than at {min(held)}²",
                    added - least, _GROWTH_MB, "MB",
                ),
            ]  # fmt: skip
        yield scale.marked(lines, _table(what, [ours, theirs], added, added / row))


def _table(what: str, every: list[Contender], added: float, in_rows: float) -> dict[str, Any]:
    ours = every[0]
    rows = [
        {
            "contender": c.name,
            "over": c.over,
            "seconds": c.median("seconds"),
            "spread": c.spread("seconds"),
            "polygons s": c.median("polygons") if c is ours else None,
            "CPU s": c.median("cpu"),
            "peak MB": c.median("held"),
            "blend MB": added if c is ours and c.over is None else None,
            "in rows": in_rows if c is ours and c.over is None else None,
            "regions": c.median("kept") if c is ours else None,
            "classified": c.median("pixels"),
            "rounds": len(c.rounds),
        }
        for c in every
    ]
    note = None
    if ours.over is None:
        note = (
            f"Frond's windows took {ours.median('run'):.3g} s and its blending "
            f"{ours.median('build'):.3g} s, of which {ours.median('polygons'):.3g} s for polygons, over "
            f"{ours.median('stored'):.3g} MB of stored masks. Its CPU seconds are those of the "
            "first part."
        )
    return {"title": f"Segmentation: {what}", "rows": rows, "plot": "seconds", "note": note}
