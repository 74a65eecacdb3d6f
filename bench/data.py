"""Detections of one image as the windows of a grid over it report them; kept under .frond/bench."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from frond.contracts.plan import WindowGrid
from frond.merge import Detections, own

SIZE, MARGIN, SIDE, CLASSES = 640, 64, 24.0, 3
COVER = {"scattered": 0.05, "crowded": 4.0}
"""How many times over the boxes cover the ground."""


def detections(n: int, kind: str, seed: int = 0) -> tuple[Detections, WindowGrid]:
    """n detections in no order: each object as every window that keeps it sees it.

    Each window's estimate errs by 0.8 pixel (sigma); coordinates are multiples of 1/64, so that
    float32 holds them too. Up to 10⁶ rows no two scores are the same.
    """
    rng = np.random.default_rng(seed)
    edge = int(np.sqrt(n * SIDE * SIDE / COVER[kind])) + SIZE
    grid = WindowGrid(width=edge, height=edge, size=SIZE, margin=MARGIN)
    centre = rng.uniform(0, edge, (int(n * 1.01) + 50, 2))
    side = rng.uniform(0.6, 1.4, centre.shape) * SIDE
    window, which = _seen(centre, grid)
    c = centre[which] + rng.normal(0, 0.8, (len(which), 2))
    boxes = np.round(np.c_[c - side[which] / 2, c + side[which] / 2] * 64) / 64
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    score = rng.random(len(which))
    bounds = np.flatnonzero(np.diff(window, prepend=-1, append=-1))
    parts = [
        own(boxes[a:b], score[a:b], which[a:b] % CLASSES, int(window[a]), grid)
        for a, b in pairwise(bounds)
    ]
    rows = Detections.concat(parts)
    rows = rows.take(rng.permutation(len(rows))[:n])
    unique = (rng.permutation(len(rows)) + 1) / max(len(rows), 1_000_000)
    found = Detections.of(rows.boxes, unique, rows.classes, rows.windows, rows.flags)
    return found, grid


def _seen(centre: np.ndarray, grid: WindowGrid) -> tuple[np.ndarray, np.ndarray]:
    """(window, object), sorted: the windows whose core is within 16 pixels of the centre."""
    cells = []
    for dx in (-16.0, 0.0, 16.0):
        for dy in (-16.0, 0.0, 16.0):
            near = centre + np.array((dx, dy))
            cell = np.clip((near - MARGIN) // grid.stride, 0, (grid.cols - 1, grid.rows - 1))
            cells.append((cell[:, 1] * grid.cols + cell[:, 0]).astype(np.int64))
    objects = np.tile(np.arange(len(centre)), len(cells))
    pairs = np.unique(np.concatenate(cells) * len(centre) + objects)
    return pairs // len(centre), pairs % len(centre)


def stored(n: int, kind: str, folder: Path) -> Path:
    """The .npz of :func:`detections`, made when it is not there."""
    path = folder / f"detections-{n}-{kind}.npz"
    if not path.exists():
        found, grid = detections(n, kind)
        folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new.npz")
        np.savez(
            fresh, boxes=found.boxes, scores=found.scores, classes=found.classes,
            windows=found.windows, flags=found.flags, grid=(grid.width, grid.height),
        )  # fmt: skip
        fresh.replace(path)
    return path


def matrix(path: str) -> np.ndarray:
    """What the others take: float32 [n, 6]: x0, y0, x1, y1, score, class."""
    d = np.load(path)
    return np.c_[d["boxes"], d["scores"], d["classes"]].astype(np.float32)


def identities(scores: np.ndarray) -> np.ndarray:
    """Rows by their score, which no two share: sorted."""
    return np.sort(np.rint(np.asarray(scores, np.float64) * 1_000_000).astype(np.int64))
