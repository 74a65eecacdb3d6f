"""Scenes in windows, and how much of each class is found: while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from frond.training.landcover.config import BACKGROUND, CLASSES, IGNORED
from frond.training.landcover.data import Bytes, Scene

Classify = Callable[[Bytes], Bytes]
"""Windows uint8 [n, s, s, 3] to class numbers [n, s, s]."""


def table(
    scenes: Sequence[Scene], classify: Classify, window: int, margin: int
) -> NDArray[np.int64]:
    """Pixels by label (down) and find (across): four classes, then the background."""
    out = np.zeros((BACKGROUND + 1, BACKGROUND + 1), np.int64)
    for scene in scenes:
        for pixels, labels, core in windows(scene, window, margin):
            found = classify(pixels[None])[0][core]
            told = labels[core]
            counts = told != IGNORED
            at = told[counts].astype(np.int64) * len(out) + found[counts]
            out += np.bincount(at, minlength=out.size).reshape(out.shape)
    return out


def windows(
    scene: Scene, window: int, margin: int
) -> Iterator[tuple[Bytes, Bytes, tuple[slice, slice]]]:
    """Windows whose cores cover the scene once; what lies beyond it is black and ignored."""
    height, width = scene.labels.shape
    step = window - 2 * margin
    for top in range(0, height, step):
        for left in range(0, width, step):
            y0, x0 = top - margin, left - margin
            ys, xs = slice(max(0, y0), y0 + window), slice(max(0, x0), x0 + window)
            pixels = np.zeros((window, window, 3), np.uint8)
            labels = np.full((window, window), IGNORED, np.uint8)
            part = scene.pixels[ys, xs]
            at = (
                slice(max(0, -y0), max(0, -y0) + part.shape[0]),
                slice(max(0, -x0), max(0, -x0) + part.shape[1]),
            )
            pixels[at], labels[at] = part, scene.labels[ys, xs]
            yield pixels, labels, (slice(margin, margin + step), slice(margin, margin + step))


def shares(counted: NDArray[np.int64]) -> dict[str, float]:
    """IoU and Dice by class, their means over classes that are labelled, and the accuracy."""
    out: dict[str, float] = {}
    ious, dices = [], []
    for k, name in enumerate(CLASSES):
        both, labels, found = counted[k, k], counted[k].sum(), counted[:, k].sum()
        if labels:
            out[f"iou_{name}"] = float(both / (labels + found - both))
            out[f"dice_{name}"] = float(2 * both / (labels + found))
            ious.append(out[f"iou_{name}"])
            dices.append(out[f"dice_{name}"])
    out["iou"] = float(np.mean(ious)) if ious else 0.0
    out["dice"] = float(np.mean(dices)) if dices else 0.0
    out["accuracy"] = float(np.trace(counted) / max(1, counted.sum()))
    return out
