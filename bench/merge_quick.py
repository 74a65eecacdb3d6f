"""Seconds to merge N detections, scattered and crowded: ``python bench/merge_quick.py [N …]``.

Detections are what the windows of a grid over one large raster would report: each object is seen
by every window that reaches it, a little differently, and goes through ``own`` like the real ones.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

from frond.contracts.plan import WindowGrid
from frond.merge import CUT, TOUCHES_BAND, Detections, merge

SIZE, MARGIN, SIDE = 640, 64, 24.0


def detections(n: int, crowded: bool, seed: int = 0) -> tuple[Detections, WindowGrid]:
    """About n detections; crowded: boxes cover the ground four times over."""
    rng = np.random.default_rng(seed)
    per_object = 1.27
    objects = int(n / per_object)
    edge = int(np.sqrt(objects * SIDE * SIDE / (4.0 if crowded else 0.05))) + SIZE
    grid = WindowGrid(width=edge, height=edge, size=SIZE, margin=MARGIN)
    centre = rng.uniform(0, edge, (objects, 2))
    side = rng.uniform(0.6, 1.4, (objects, 2)) * SIDE
    stride = grid.stride
    parts = []
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            near = centre + np.array((dx, dy)) * 8.0
            cell = np.clip((near - MARGIN) // stride, 0, (grid.cols - 1, grid.rows - 1)).astype(int)
            parts.append((cell[:, 1] * grid.cols + cell[:, 0], np.arange(objects)))
    seen = np.unique(np.stack([np.concatenate(p) for p in zip(*parts, strict=True)], 1), axis=0)
    which = seen[:, 1]
    c = centre[which] + rng.normal(0, 0.8, (len(which), 2))
    boxes = np.clip(np.c_[c - side[which] / 2, c + side[which] / 2], 0, edge)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    flags = np.full(len(which), TOUCHES_BAND)
    flags[rng.random(len(which)) < 0.02] |= CUT
    order = rng.permutation(len(which))
    found = Detections.of(boxes, rng.random(len(which)), which % 3, seen[:, 0], flags)
    return found.take(order), grid


def main() -> None:
    sizes = [int(a) for a in sys.argv[1:]] or [10_000, 100_000, 1_000_000, 2_000_000]
    print(f"{'kind':>10} {'N':>9} {'kept':>9} {'seconds':>8} {'peak MB':>8}")
    for crowded in (False, True):
        for n in sizes:
            found, grid = detections(n, crowded)
            start = time.perf_counter()
            kept = merge(found, grid, 0.5)
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            kind = "crowded" if crowded else "scattered"
            print(f"{kind:>10} {len(found):>9} {len(kept):>9} {seconds:>8.2f} {peak:>8.0f}")


if __name__ == "__main__":
    main()
