"""frond.merge on the windows' detections, and on the same boxes as plain NMS."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data import MARGIN, SIZE, identities
from frond.contracts.plan import WindowGrid
from frond.merge import TOUCHES_BAND, Detections, merge


def windows(path: str, iou: float, keep: str) -> Callable[[], dict[str, object]]:
    d = np.load(path)
    width, height = (int(v) for v in d["grid"])
    grid = WindowGrid(width=width, height=height, size=SIZE, margin=MARGIN)
    rows = Detections(*(d[k] for k in ("boxes", "scores", "classes", "windows", "flags")))
    return _work(rows, grid, iou, keep)


def plain_nms(path: str, iou: float, keep: str) -> Callable[[], dict[str, object]]:
    """Every box from a window of its own, all in the band: greedy NMS by class, nothing else."""
    d = np.load(path)
    n = len(d["scores"])
    grid = WindowGrid(width=8 * 1000, height=8 * (n // 1000 + 1), size=8, margin=0)
    flags = np.full(n, TOUCHES_BAND, np.uint8)
    rows = Detections(d["boxes"], d["scores"], d["classes"], np.arange(n), flags)
    return _work(rows, grid, iou, keep)


def _work(rows: Detections, grid: WindowGrid, iou: float, keep: str) -> Callable[[], dict]:
    merge(rows.take(slice(0, 500)), grid, iou)

    def work() -> dict[str, object]:
        kept = merge(rows, grid, iou)
        if keep:
            np.save(keep, identities(kept.scores))
        return {"kept": len(kept)}

    return work
